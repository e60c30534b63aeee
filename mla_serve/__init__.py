"""Train a classifier on any mix of images, sounds, texts and numbers, and serve it when some of them are missing.

A table of labelled rows becomes a run (checkpoints), the run becomes a bundle (ONNX graphs and a manifest), and the service
answers requests with the bundle. A modality is one of the inputs of a row, such as its image. Any of them may be missing.

errors.py      every error that is raised on purpose
console.py     what all commands share: flags, errors in one line, exit codes
telemetry.py   switch off the usage reports of libraries
payloads.py    a value of a caller (path, image, array, ...) -> payload
inputs/        payload -> array: one class per kind of input
fusion/        the logits of several modalities -> one answer, its prediction set, how unfamiliar the input is
table/         the data set: read, check, list faulty rows
bundle/        a finished model, and predicting with it
evaluation/    measure a bundle on a labelled table
output/        where commands write, and what they may replace
client/        the Python client of the service
bulk/          classify tables of any size
serve/         the HTTP service; the only package that imports BentoML
train/         training; imports PyTorch
export/        a run -> a bundle (in a clone the folder export/ beside this one)
commands/      one file per command of `mla-serve`; __main__.py lists them

A package imports only what stands above it in this list. docs/explanation/architecture.md draws the layers. tests/test_imports.py checks them.
"""

import os

from mla_serve import telemetry

__version__ = "0.2.0"

telemetry.switch_off(os.environ)  # here, because every process of this package imports this before any library
