"""From a finished run to a bundle: one ONNX graph per encoder, one per head, checked against torch before it counts."""
