"""Rows for training: checked, split, decoded, augmented, handed out in batches."""
