"""Fuse the opinions of the modalities that were sent into one answer. Numpy only.

formula    the fitted formula and its parameters
rules      every rule that a request may choose
explain    how much an answer depends on each modality
intervals  prediction sets and intervals that contain the truth at a requested rate
novelty    how unlike the training data an input is: `unfamiliarity` in an answer, `excess` in the formula
"""
