"""Rows for training.

keypad, keypad_tables   generate the built-in data set
split, row_counts       hold out validation rows; count rows by modality
choose_inputs           how each modality is decoded
duplicates, checks      find equal and nearly equal values; notes on the rows
samples                 decoded rows in memory
batches                 the batches that training takes from them
folds                   cross-validation folds
"""
