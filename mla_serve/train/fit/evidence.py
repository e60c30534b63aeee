"""The opinions on labelled rows, which the fusion is fitted on."""

from __future__ import annotations

import dataclasses

import numpy as np

from mla_serve.fusion.formula import Array
from mla_serve.tasks import Classes, Task


@dataclasses.dataclass(frozen=True)
class UnseenOpinions:
    """Opinions on the rows for training and validation, each by a model that was trained without the row's fold.

    fold (N,): the number of each row's fold. note: says how the folds were made.
    """

    evidence: Evidence
    fold: Array
    note: str


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Opinions on labelled rows: opinions (M, N, O), present (M, N) bool, targets (N, ...), excess (M, N), and the task."""

    opinions: Array
    present: Array
    targets: Array
    excess: Array
    task: Task = Classes()  # noqa: RUF009 (frozen)

    @classmethod
    def of(
        cls,
        opinions: Array,
        present: Array,
        targets: Array,
        excess: Array | None = None,
        task: Task = Classes(),  # noqa: B008 (frozen)
    ) -> Evidence:
        """Take rows, with 0 for what is missing."""
        clean = np.where(present[..., None], opinions, opinions.dtype.type(0))
        excess = np.zeros(present.shape) if excess is None else np.where(present, excess, 0.0)
        return cls(clean, present, targets, excess, task)

    def rows(self, chosen: Array | slice) -> Evidence:
        """Return the rows of an index or a mask."""
        return dataclasses.replace(
            self,
            opinions=self.opinions[:, chosen],
            present=self.present[:, chosen],
            targets=self.targets[chosen],
            excess=self.excess[:, chosen],
        )

    def and_also(self, other: Evidence) -> Evidence:
        """Append the rows of another."""
        return dataclasses.replace(
            self,
            opinions=np.concatenate([self.opinions, other.opinions], axis=1),
            present=np.concatenate([self.present, other.present], axis=1),
            targets=np.concatenate([self.targets, other.targets]),
            excess=np.concatenate([self.excess, other.excess], axis=1),
        )
