"""A bundle, which is a finished model in a folder, and predicting with it. No torch, no BentoML.

manifest   the files of a bundle: read, check and write them
graphs     check an ONNX file without running it
runtime    the only module that uses onnxruntime
predictor  payloads -> arrays -> features -> logits -> one prediction
results    the prediction, as the predictor returns it, the service sends it and the client reads it
html       draw results in a notebook
"""
