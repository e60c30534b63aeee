"""Rows for training.

keypad, keypad_tables   generate the built-in data set
row_counts              count rows by modality
choose_inputs           how each modality is decoded
decode, decode_values   decode every value once, into the cache
unknown_columns         leave out columns that no row for training has a value of
packing                 how decoded windows are stored
fingerprints, duplicates, checks   find equal and nearly equal values; notes on the rows
samples                 decoded rows, read from the cache
order                   the order in which rows are visited
batches                 the batches that training takes from them
folds                   cross-validation folds
"""
