"""Measure a bundle on one split of a data set, under every condition of missing modalities. No torch.

splits       run one split through the graphs and score it
scores       the scores of the task, and the conditions
analysis     curves over missing rates, leave one modality out, bootstrap intervals, groups, corruption
share_interval  the interval of a share of rows, also where all are right
details      what only one task has: confusion, a table of labels, errors by deviation
unknown_cells  cells and categories that the model does not know
importance   which columns of a table count
draw         the table for the terminal
results      what an evaluation from Python returns
"""
