"""What is fitted after training, on validation rows and on corrupted copies of them.

after_training   the order of the steps
features         features and opinions of all rows
evidence         the opinions on labelled rows
novelty          the reference by which unfamiliar input is detected
cross_validate   which regularisation of the fusion to use
families         the distributions of each task, differentiable
formula          the parameters of the fusion
intervals        the thresholds of prediction sets and intervals
thresholds       the probability from which a label is answered
"""
