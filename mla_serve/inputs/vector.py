"""Vectors: a list of numbers, such as measurements or embeddings."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

import numpy as np

from mla_serve.errors import InputError, TooLarge
from mla_serve.inputs.base import Array, Corruptions, Input, Payload, SentAs
from mla_serve.inputs.corruptions import shuffled_numbers, vector_noise, zeroed_numbers


@dataclasses.dataclass(frozen=True)
class VectorInput(Input):
    """A list of `size` finite numbers; as text, a JSON list or numbers separated by commas or spaces."""

    size: int

    kind: ClassVar[str] = "vector"
    tensor: ClassVar[str] = "values"
    dtype: ClassVar[type[np.generic]] = np.float32
    sent_as: ClassVar[SentAs] = "numbers"
    corruptions: ClassVar[Corruptions] = {
        "noise": vector_noise,
        "zeroed": zeroed_numbers,
        "shuffled": shuffled_numbers,
    }

    @property
    def shape(self) -> tuple[int]:
        """(size,)."""
        return (self.size,)

    def decode(self, payload: Payload, field: str = "vector") -> Array:
        """Decode a list of numbers into (1, size) float32."""
        expected = f"expected {self.size} finite numbers"
        values = self._parse(payload, field) if isinstance(payload, str | bytes) else payload
        if not isinstance(values, list | tuple) or not all(_is_number(value) for value in values):
            raise InputError(field, f"{expected}, got something else; send a list such as [0.5, -1, 2e3]")
        if len(values) != self.size:
            raise InputError(field, f"{expected}, got {len(values)}; send one number per entry, in the training order")
        with np.errstate(over="ignore"):
            row = np.array(values, dtype=np.float64).astype(np.float32)[None]
        if not np.isfinite(row).all():
            raise InputError(field, f"{expected}, got NaN, infinity or more than float32 holds; leave the field out")
        return row

    def generate(self, generator: np.random.Generator) -> list[float]:
        """Make random numbers."""
        return [round(float(value), 4) for value in generator.standard_normal(self.size)]

    def _parse(self, text: str | bytes, field: str) -> Any:
        if len(text) > 64 * self.size + 1024:
            raise TooLarge(field, f"{len(text):,} characters for {self.size} numbers; send fewer digits")
        try:
            text = text.decode() if isinstance(text, bytes) else text
            return (
                json.loads(text)
                if text.lstrip().startswith("[")
                else [
                    float(x) for part in text.split(",") for x in part.split() or [part]
                ]  # part is blank in "1,,3", so float() raises
            )
        except (ValueError, RecursionError):
            raise InputError(
                field,
                f"expected {self.size} numbers, got text that is no list of numbers; leave the field out if one is missing",
            ) from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
