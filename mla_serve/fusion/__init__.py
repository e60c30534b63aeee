"""Fuse the opinions of the modalities that are there. Numpy only.

formula    the fitted formula and its parameters
rules      every rule that a request may choose
explain    how much an answer owes to each modality
intervals  prediction sets with a promised coverage
novelty    how unlike the training data an input is
"""
