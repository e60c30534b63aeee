"""Two kinds of input that only the tests know: one is sent as text, the other as a file."""

from __future__ import annotations

import dataclasses
import struct
from typing import ClassVar

import numpy as np

from mla_serve.errors import InputError
from mla_serve.inputs import Array, Input, Payload
from mla_serve.inputs.base import SentAs


@dataclasses.dataclass(frozen=True)
class PairInput(Input):
    """Two numbers, as text with a comma between them."""

    kind: ClassVar[str] = "pair"
    tensor: ClassVar[str] = "pair"
    dtype: ClassVar[type[np.generic]] = np.float32
    sent_as: ClassVar[SentAs] = "text"

    @property
    def shape(self) -> tuple[int]:
        return (2,)

    def decode(self, payload: Payload, field: str) -> Array:
        try:
            first, second = map(float, str(payload).split(","))
        except ValueError:
            raise InputError(field, f"expected two numbers, got {payload!r:.20}; send 0.5,-1") from None
        return np.array([[first, second]], dtype=np.float32)

    def generate(self, generator: np.random.Generator) -> Payload:
        return "{:.3f},{:.3f}".format(*generator.standard_normal(2))


@dataclasses.dataclass(frozen=True)
class BlobInput(PairInput):
    """Two little-endian floats in a file."""

    kind: ClassVar[str] = "blob"
    sent_as: ClassVar[SentAs] = "file"

    def decode(self, payload: Payload, field: str) -> Array:
        if not isinstance(payload, bytes) or len(payload) != 8:
            raise InputError(field, "expected a file of 8 bytes; send two floats")
        return np.frombuffer(payload, "<f4")[None].copy()

    def generate(self, generator: np.random.Generator) -> Payload:
        return struct.pack("<2f", *generator.standard_normal(2))
