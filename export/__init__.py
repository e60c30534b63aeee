"""From a finished run to a bundle: one ONNX graph for each encoder and each head, compared with torch before it is kept.

export_run         write the bundle of a run
export_extension   write the bundle of a run that extends another bundle
steps              what both write: encoders, inputs, payloads, facts on the training
finish             measure the bundle; write the report, the model card and the final manifest
run_data           the data set of the run, read again
recalibrate        fit a finished bundle to new rows; its graphs stay as they are
new_rows           which rows it is fitted to
copied_rows        rows that are no use for it: copies of training rows, and of fitted rows among those to measure on
graph_features     what its graphs give for them
graph_fit          the fit itself
graphs             torch modules to ONNX graphs, and their comparison
choose_precision   the fastest precision of each encoder within a bound on accuracy
quantise, timing   int8 and fp16 graphs; how many times faster they are
report             report.json and report.html: measures, and chooses what may be shown
page, sections     report.html from top to bottom; sections has what differs by task
combinations, numbers, charts, plot, media, wording   its tables, figures, payloads, and how numbers and texts are written
card               MODEL_CARD.md
check_gpu          compare a bundle on CUDA and on the CPU
"""
