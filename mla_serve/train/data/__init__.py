"""Rows for training.

keypad, keypad_tables   generate the built-in data set
row_counts              count rows by modality
choose_inputs           how each modality is decoded
duplicates, checks      find equal and nearly equal values; notes on the rows
samples                 decoded rows in memory
batches                 the batches that training takes from them
folds                   cross-validation folds
"""
