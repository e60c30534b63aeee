"""How good a bundle is: scores of one split of a data set, under every condition of missing modalities. No torch.

splits       run one split through the graphs and score it
scores       accuracy, NLL, ECE ..., and the conditions
analysis     curves over missing rates, leaving one modality out, intervals, confusion
corruptions  spoil inputs on purpose, in five degrees
draw         the table that is printed
"""
