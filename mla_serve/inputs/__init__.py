"""Payload to array: one frozen dataclass per kind of input, used by training and serving alike.

An input decodes only. What is computed from there on, such as a log-mel spectrogram, is a part of the encoder and so of its
graph (train/encoders).

A new kind is a subclass of `Input` and an entry in INPUTS, and for training an encoder in train/encoders. How it is read
from tables, sent by clients and asked for on the page follows from `sent_as`. CONTRIBUTING.md lists every step, and
tests/train/test_new_kind.py shows them.
"""

from mla_serve.inputs.audio import AudioInput
from mla_serve.inputs.base import Array, Cell, Input, Payload, list_fields
from mla_serve.inputs.columns import Column, ColumnsInput
from mla_serve.inputs.image import ImageInput
from mla_serve.inputs.text import TextInput
from mla_serve.inputs.vector import VectorInput

INPUTS: dict[str, type[Input]] = {
    cls.kind: cls for cls in (ImageInput, AudioInput, TextInput, VectorInput, ColumnsInput)
}

__all__ = [
    "INPUTS",
    "Array",
    "AudioInput",
    "Cell",
    "Column",
    "ColumnsInput",
    "ImageInput",
    "Input",
    "Payload",
    "TextInput",
    "VectorInput",
    "list_fields",
]
