"""Train a model on any mix of images, sounds, texts and numbers, and serve it when some of them are missing.

A table of labelled rows becomes a run (checkpoints), the run becomes a bundle (ONNX graphs and a manifest), and the service
answers requests with the bundle. A modality is one of the inputs of a row, such as its image. Any of them may be missing.

errors.py      every error that is raised on purpose
console.py     what all commands share: flags, errors in one line, exit codes
telemetry.py   switch off the usage reports of libraries
decimals.py    numbers for people
palette.py     the colours of all that people see
progress.py    how far a long piece of work is
payloads.py    a value of a caller (path, image, array, ...) -> payload
tasks/         what is predicted: one of several classes, any number of labels, a number
inputs/        payload -> array: one class per kind of input
fusion/        the opinions of several modalities -> one answer, its prediction set, how unfamiliar the input is
table/         the data set: read, check, list faulty rows
bundle/        a finished model, and predicting with it
evaluation/    measure a bundle on a labelled table
output/        where commands write, and what they may replace
client/        the Python client of the service
bulk/          answer tables of any size
serve/         the HTTP service; the only package that imports BentoML
train/         training; imports PyTorch
export/        a run -> a bundle (in a clone the folder export/ beside this one)
python/        fit, load and Predictor, which this module offers
sklearn.py     estimators for scikit-learn
commands/      one file per command of `mla-serve`; __main__.py lists them

From Python:

    import mla_serve
    model = mla_serve.fit(frame, label="category", out="models/shop")
    model = mla_serve.load("models/shop")
    model.predict(image="a.jpg", text="blue mug")

A package imports only what stands above it in this list. docs/explanation/architecture.md draws the layers. tests/test_imports.py checks them.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from mla_serve import telemetry

if TYPE_CHECKING:
    from mla_serve.bundle.results import ClassPrediction, LabelsPrediction, NumberPrediction, Prediction
    from mla_serve.client import AsyncClient, Client
    from mla_serve.evaluation.results import Evaluation
    from mla_serve.python.fit import fit
    from mla_serve.python.predictor import Predictor, load

__version__ = "0.2.0"
__all__ = [
    "AsyncClient",
    "ClassPrediction",
    "Client",
    "Evaluation",
    "LabelsPrediction",
    "NumberPrediction",
    "Prediction",
    "Predictor",
    "__version__",
    "fit",
    "load",
]

telemetry.switch_off(os.environ)  # here, because every process of this package imports this before any library

# Names that are imported when they are used first: name -> module. TYPE_CHECKING above tells type checkers the same.
_LAZY = {
    "AsyncClient": "mla_serve.client",
    "ClassPrediction": "mla_serve.bundle.results",
    "Client": "mla_serve.client",
    "Evaluation": "mla_serve.evaluation.results",
    "LabelsPrediction": "mla_serve.bundle.results",
    "NumberPrediction": "mla_serve.bundle.results",
    "Prediction": "mla_serve.bundle.results",
    "Predictor": "mla_serve.python.predictor",
    "fit": "mla_serve.python.fit",
    "load": "mla_serve.python.predictor",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import mla_serve` costs nothing (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
