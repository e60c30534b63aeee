"""Encoders: one module per kind of input, decoded arrays in, features (B, D) out, everything numeric inside.

A new encoder is a class and a line in ENCODERS; the first of each kind is the default.
"""

from mla_serve.train.encoders.audio import AudioResNet18, SmallAudio
from mla_serve.train.encoders.base import Encoder
from mla_serve.train.encoders.image import ImageResNet18, SmallImage
from mla_serve.train.encoders.text import SmallText
from mla_serve.train.encoders.vector import SmallVector

ENCODERS: dict[str, dict[str, type[Encoder]]] = {
    "image": {"small": SmallImage, "resnet18": ImageResNet18},
    "audio": {"small": SmallAudio, "resnet18": AudioResNet18},
    "text": {"small": SmallText},
    "vector": {"small": SmallVector},
}

__all__ = ["ENCODERS", "Encoder"]
