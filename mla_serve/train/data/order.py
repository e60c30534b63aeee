"""The order in which the rows of an epoch are visited, and which of them form a batch.

A modality that few rows have would have one or no row in most batches. An encoder that normalises over the batch cannot
learn from one row, and learns badly from two. So the rows of such a modality are gathered: it takes part in fewer batches,
in each with enough rows, and over an epoch every row is used. All strategies and all processes see the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENOUGH = 8  # the share of a batch, one in so many, that a modality has at least where it occurs; two rows at least
ALONE = 3.0  # a row that is alone in its batch cannot be used: it costs more than several batches that are short
PASSES, TARGETS = 3, 32  # over all modalities; batches that such a row may go to


def epoch_order(labels: Tensor, generator: torch.Generator, *, balanced: bool) -> Tensor:
    """Return the positions of the rows of one epoch, in random order: (N,) int64.

    Args: labels (N,) int64; balanced, take equally many rows of each class instead of each row once. The classes differ by
    one at most, and so do the rows of a class in how often they occur.
    """
    if not balanced:
        return torch.randperm(len(labels), generator=generator)
    classes = labels.unique()
    share, left = divmod(len(labels), len(classes))
    favoured = torch.randperm(len(classes), generator=generator)[:left].tolist()
    drawn = torch.cat(
        [
            _cycle((labels == label).nonzero().squeeze(1), share + (at in favoured), generator)
            for at, label in enumerate(classes)
        ]
    )
    return drawn[torch.randperm(len(drawn), generator=generator)]


def _cycle(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Take `count` of the rows: all of them in random order, again and again."""
    rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // len(rows)))]
    return torch.cat(rounds)[:count] if rounds else rows[:0]


def split_batches(order: Tensor, present: Sequence[Tensor], size: int) -> list[Tensor]:
    """Split the rows of an epoch into batches, in which every modality occurs with enough rows or not at all.

    A last batch of one row is joined to the one before. Rows change places only where a modality has too few in some batch, and
    only if that brings all modalities together closer to the aim. So a table without rare modalities keeps its order.

    Args: order (N,) int64; present, of each modality (rows of the table,) bool; size, rows of a batch.
    """
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    if len(batches) > 1:
        there = torch.stack(list(present))[:, order].numpy().T
        bounds = np.cumsum([0, *map(len, batches)])
        places = _Gathering(there, bounds, max(2, size // ENOUGH)).places
        batches = list(order[torch.from_numpy(places)].split([len(batch) for batch in batches]))
    return batches


class _Gathering:
    """Exchange rows between batches until every modality has enough rows in each batch in which it occurs.

    places: the rows' positions in the order that was given, batch by batch.
    """

    def __init__(self, there: NDArray[np.bool_], bounds: NDArray[np.int64], enough: int) -> None:
        """Exchange at once. Args: there (N, M), in the order given; bounds, of the batches; enough, rows."""
        self.places = np.arange(len(there))
        self._there, self._bounds = there.astype(np.int64), bounds
        self._counts = np.add.reduceat(self._there, bounds[:-1])
        counts = np.arange(self._there.sum(axis=0).max() + 2)
        # By the square root, moving a row from the batch with fewer rows to the one with more lowers the cost.
        self._cost = np.where(counts < enough, np.sqrt(counts), 0.0)
        rarest_first = np.argsort(self._there.sum(axis=0), kind="stable").tolist()
        for modality in PASSES * rarest_first:
            self._gather(modality, enough)
        self._cost += ALONE * (counts == 1)
        for modality in PASSES * rarest_first:
            self._accompany(modality)

    def _gather(self, modality: int, enough: int) -> None:
        """Move the rows of one modality out of the batches with the fewest, into the fullest that is short, or of all."""
        counts = self._counts[:, modality]
        for source in _batches_by(counts, (counts > 0) & (counts < enough)):
            moved = True
            while moved and 0 < counts[source] < enough:
                others = np.where(counts < enough, counts + counts.max(), counts) * (counts > 0)
                others[source] = 0
                target = int(others.argmax())
                moved = bool(others[target]) and self._exchange(modality, source, target)

    def _accompany(self, modality: int) -> None:
        """Move each row that is alone in its batch to others, or another row to it."""
        counts = self._counts[:, modality]
        for source in _batches_by(counts, counts == 1):
            others = [batch for batch in _batches_by(-counts, counts > 0)[:TARGETS] if batch != source]
            for other in others if counts[source] == 1 else ():  # another row may have joined it meanwhile
                if self._exchange(modality, source, other) or self._exchange(modality, other, source):
                    break

    def _exchange(self, modality: int, source: int, target: int) -> bool:
        """Exchange the rows that lower the cost over all modalities most. Returns: whether any do."""
        ours, theirs = (slice(*self._bounds[batch : batch + 2]) for batch in (source, target))
        leaving = ours.start + np.flatnonzero(self._there[self.places[ours], modality])
        coming = theirs.start + np.flatnonzero(self._there[self.places[theirs], modality] == 0)
        if not len(coming):
            return False
        gained = self._there[self.places[leaving]][:, None] - self._there[self.places[coming]][None]
        after = self._cost[self._counts[target] + gained] + self._cost[self._counts[source] - gained]
        costs = after.sum(axis=-1)
        best = np.unravel_index(costs.argmin(), costs.shape)
        if costs[best] >= (self._cost[self._counts[[source, target]]]).sum() - 1e-9:
            return False
        one, other = leaving[best[0]], coming[best[1]]
        self.places[[one, other]] = self.places[[other, one]]
        self._counts[target] += gained[best]
        self._counts[source] -= gained[best]
        return True


def _batches_by(key: NDArray[np.int64], chosen: NDArray[np.bool_]) -> list[int]:
    """List the chosen batches by a key, ascending."""
    numbers = np.flatnonzero(chosen)
    batches: list[int] = numbers[np.argsort(key[numbers], kind="stable")].tolist()
    return batches
