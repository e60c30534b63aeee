"""From a table to a finished run. Only here and in export/ is torch imported. In the order of a run:

config          the settings
plan            read the table, choose inputs and encoders, check the rows       paths, data/, pretrained/, recipe, device
describe        the lines that are printed before training and for each epoch     plan
notes           notes on data and training, and which of them the bundle may hold
choices         what is chosen from the rows                                     defaults, balance, augmentation
start_from      begin with the encoders of an earlier run
recipe          what fixes the modules                                           encoders/, strategies/
run             begin or resume, train, fit, write run.json                      data/samples, run_folder, golden_samples, allocator
losses          the loss of each task
loop            epochs, validation, checkpoints                                  data/batches
clock           the time that training may take
cache/          decoded files and features, kept on disk
event_files     the records of the epochs for TensorBoard
cross_validation  the same for each fold, before the final run
strategies/     how a batch changes encoders and heads                           distributed/
fit/            what is fitted afterwards: fusion, prediction sets, references
extend/         the same for modalities that are added to a finished bundle
"""
