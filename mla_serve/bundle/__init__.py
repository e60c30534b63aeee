"""A finished model and asking it: the bundle's manifest, its graphs, the predictor and its results. No torch, no BentoML.

manifest   the folder of a bundle: what is in it, reading and checking it
graphs     what an ONNX file holds, without running it
runtime    the one place that uses onnxruntime
predictor  payloads -> arrays -> features -> logits -> one prediction
results    the prediction, as the predictor makes it, the service sends it and the client reads it
"""
