"""A bundle, which is a finished model in a folder, and predicting with it. No torch, no BentoML.

manifest        the files of a bundle: read, check and write them
about           what its maker says of it: purpose, limits, data, licence
markdown        Markdown as HTML, for what its maker says
graphs          check an ONNX file without running it
runtime         the only module that uses onnxruntime
predictor       payloads -> arrays -> features -> opinions -> one prediction
answers         fused answers -> predictions, for each task
results         the prediction, as the predictor returns it, the service sends it and the client reads it
answer_columns  the columns of predictions in a table
drawing         draw a prediction, in a terminal or in a notebook
html            parts of drawings for a notebook
"""
