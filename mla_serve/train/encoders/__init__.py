"""Encoders: one module per kind of input, decoded arrays in, features (B, D) out, everything numeric inside.

A new encoder is a class and a line in ENCODERS. The first of each kind is the default; it also chooses the settings of the
input and augments training samples, for pretrained encoders too.
"""

from mla_serve.train.encoders.audio import AudioResNet18, SmallAudio
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.columns import SmallColumns
from mla_serve.train.encoders.image import ImageResNet18, SmallImage
from mla_serve.train.encoders.text import SmallText
from mla_serve.train.encoders.vector import SmallVector

ENCODERS: dict[str, dict[str, type[Encoder]]] = {
    "image": {"small": SmallImage, "resnet18": ImageResNet18},
    "audio": {"small": SmallAudio, "resnet18": AudioResNet18},
    "text": {"small": SmallText},
    "vector": {"small": SmallVector},
    "columns": {"small": SmallColumns},
}


def default_encoder(kind: str) -> type[Encoder]:
    """Return the first encoder of a kind of input."""
    return next(iter(ENCODERS[kind].values()))


__all__ = ["ENCODERS", "Encoder", "default_encoder"]
