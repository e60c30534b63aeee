"""How decoded windows are stored: as few bytes as hold them, in records of one size.

Pictures are stored as they are decoded, in uint8, and token numbers in int32. Recordings are stored in int16. A recording
whose samples are multiples of 1/32768, such as a 16-bit file read at its own rate, comes back exactly. Any other, such as one
that is resampled or mixed down to mono, has a scale of its own, and comes back within half a step: 1/65534 of its peak.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mla_serve.inputs import Array, AudioInput, Input
from mla_serve.inputs.audio import PADDING

LARGEST = 32767
STEP = np.float32(1 / 32768)  # between two samples of a 16-bit file


@dataclasses.dataclass(frozen=True)
class Packing:
    """Windows (W, *shape) to records (W, ...) and back. This one stores them as they are, integers in 32 bits."""

    spec: Input

    @property
    def record(self) -> np.dtype[np.generic]:
        """The dtype of one record."""
        stored = np.dtype(np.int32 if self.spec.dtype is np.int64 else self.spec.dtype)
        return np.dtype((stored.newbyteorder("<"), self.spec.shape))

    def pack(self, windows: Array) -> Array:
        """Make records of windows (W, *shape)."""
        return windows.astype(self.record.base)

    def unpack(self, records: Array) -> Array:
        """Make windows (W, *shape) of records; always a copy."""
        return np.array(records, self.spec.dtype)


@dataclasses.dataclass(frozen=True)
class SoundPacking(Packing):
    """Samples in int16, with their scale and the number of samples in front of the marked padding."""

    spec: AudioInput

    @property
    def record(self) -> np.dtype[np.generic]:
        """The dtype of one record."""
        return np.dtype([("scale", "<f4"), ("recorded", "<i4"), ("samples", "<i2", self.spec.shape)])

    def pack(self, windows: Array) -> Array:
        """Make records of windows (W, T)."""
        records = np.empty(len(windows), self.record)
        records["recorded"] = [self.spec.recorded(window) for window in windows]
        samples = np.where(self._is_padding(records), np.float32(0), windows)
        steps = np.rint(samples / STEP)
        exact = np.array_equal(steps * STEP, samples) and steps.max(initial=0) <= LARGEST
        scale = STEP if exact else np.float32(np.abs(samples).max(initial=0) / LARGEST)
        records["scale"] = scale
        records["samples"] = steps if exact else np.rint(samples / scale)
        return records

    def unpack(self, records: Array) -> Array:
        """Make windows (W, T) float32 of records."""
        windows: Array = records["samples"] * records["scale"][:, None]
        if self.spec.mark_padding:
            windows[self._is_padding(records)] = PADDING
        return windows

    def _is_padding(self, records: Array) -> Array:
        """Return which samples are marked padding: (W, T) bool."""
        at: Array = np.arange(self.spec.window) >= records["recorded"][:, None]
        return at


def packing_of(spec: Input) -> Packing:
    """Return how the windows of an input are stored."""
    return SoundPacking(spec) if isinstance(spec, AudioInput) else Packing(spec)
