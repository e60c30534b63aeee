"""The logits of labelled rows, which the fusion is fitted on."""

from __future__ import annotations

import dataclasses

import numpy as np

from mla_serve.fusion.formula import Array


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Logits of labelled rows: logits (M, N, C), present (M, N) bool, labels (N,), excess (M, N)."""

    logits: Array
    present: Array
    labels: Array
    excess: Array

    @classmethod
    def of(cls, logits: Array, present: Array, labels: Array, excess: Array | None = None) -> Evidence:
        """Take rows, with 0 for what is missing."""
        clean = np.where(present[..., None], logits, 0.0).astype(np.float64)
        excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
        return cls(clean, present, labels, excess)

    def rows(self, chosen: Array) -> Evidence:
        """Return the rows of an index or a mask."""
        return Evidence(
            self.logits[:, chosen],
            self.present[:, chosen],
            self.labels[chosen],
            self.excess[:, chosen],
        )

    def and_also(self, other: Evidence) -> Evidence:
        """Append the rows of another."""
        return Evidence(
            np.concatenate([self.logits, other.logits], axis=1),
            np.concatenate([self.present, other.present], axis=1),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.excess, other.excess], axis=1),
        )
