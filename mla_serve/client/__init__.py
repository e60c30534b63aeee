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

from mla_serve.bundle.results import Answer, Embedding, LabelProbability, ModelId, Opinion, Prediction
from mla_serve.client.client import AsyncClient, Client
from mla_serve.client.errors import (
    Busy,
    NoAccess,
    NoAnswer,
    ServiceError,
    TimedOut,
)
from mla_serve.client.exchange import Retry
from mla_serve.client.model import Modality, Model
from mla_serve.errors import InputError, MissingInput, MlaServeError, TooLarge, UnknownField, UnsupportedFormat

__all__ = [
    "Answer",
    "AsyncClient",
    "Busy",
    "Client",
    "Embedding",
    "InputError",
    "LabelProbability",
    "MissingInput",
    "MlaServeError",
    "Modality",
    "Model",
    "ModelId",
    "NoAccess",
    "NoAnswer",
    "Opinion",
    "Prediction",
    "Retry",
    "ServiceError",
    "TimedOut",
    "TooLarge",
    "UnknownField",
    "UnsupportedFormat",
]
