"""The opinions on labelled rows, which the fusion is fitted on."""

from __future__ import annotations

import dataclasses

import numpy as np

from mla_serve.fusion.formula import Array


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Opinions on labelled rows: opinions (M, N, O), present (M, N) bool, targets (N, ...), excess (M, N)."""

    opinions: Array
    present: Array
    targets: Array
    excess: Array

    @classmethod
    def of(cls, opinions: Array, present: Array, targets: Array, excess: Array | None = None) -> Evidence:
        """Take rows, with 0 for what is missing."""
        clean = np.where(present[..., None], opinions, 0.0).astype(np.float64)
        excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
        return cls(clean, present, targets, excess)

    def rows(self, chosen: Array) -> Evidence:
        """Return the rows of an index or a mask."""
        return Evidence(
            self.opinions[:, chosen],
            self.present[:, chosen],
            self.targets[chosen],
            self.excess[:, chosen],
        )

    def and_also(self, other: Evidence) -> Evidence:
        """Append the rows of another."""
        return Evidence(
            np.concatenate([self.opinions, other.opinions], axis=1),
            np.concatenate([self.present, other.present], axis=1),
            np.concatenate([self.targets, other.targets]),
            np.concatenate([self.excess, other.excess], axis=1),
        )
