"""The Python client of a running service. Needs httpx and nothing of the server.

    from mla_serve.client import Client

    with Client("http://localhost:3000") as client:
        answer = client.predict(image="seven.png", text="seven")

errors      problem+json -> exceptions
exchange    one call as a sequence of steps (send, wait, retry), without network or clock
many        many calls: their order, bounded concurrency, a progress bar
model       the reply of GET /model
client      Client and AsyncClient, which carry the steps out
"""

from mla_serve.bundle.results import (
    ClassOpinion,
    ClassPrediction,
    Embedding,
    Interval,
    LabelDecision,
    LabelProbability,
    LabelsOpinion,
    LabelsPrediction,
    ModelId,
    NumberOpinion,
    NumberPrediction,
    Opinion,
    Prediction,
    PredictionSet,
)
from mla_serve.client.client import AsyncClient, Client
from mla_serve.client.errors import (
    Busy,
    NoAccess,
    NoAnswer,
    ServiceError,
    TimedOut,
)
from mla_serve.client.exchange import Retry
from mla_serve.client.model import LabelThreshold, Modality, Model, NumberTarget
from mla_serve.errors import InputError, MissingInput, MlaServeError, TooLarge, UnknownField, UnsupportedFormat

__all__ = [
    "AsyncClient",
    "Busy",
    "ClassOpinion",
    "ClassPrediction",
    "Client",
    "Embedding",
    "InputError",
    "Interval",
    "LabelDecision",
    "LabelProbability",
    "LabelThreshold",
    "LabelsOpinion",
    "LabelsPrediction",
    "MissingInput",
    "MlaServeError",
    "Modality",
    "Model",
    "ModelId",
    "NoAccess",
    "NoAnswer",
    "NumberOpinion",
    "NumberPrediction",
    "NumberTarget",
    "Opinion",
    "Prediction",
    "PredictionSet",
    "Retry",
    "ServiceError",
    "TimedOut",
    "TooLarge",
    "UnknownField",
    "UnsupportedFormat",
]
