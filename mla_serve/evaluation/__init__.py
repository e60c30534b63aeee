"""Measure a bundle on one split of a data set, under every condition of missing modalities. No torch.

splits       run one split through the graphs and score it
scores       accuracy, NLL, ECE and others, and the conditions
analysis     curves over missing rates, leave one modality out, bootstrap intervals, confusion, corruption
importance   which columns of a table count
draw         the table for the terminal
results      what an evaluation from Python returns
"""
