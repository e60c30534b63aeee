"""The order in which the rows of an epoch are visited."""

from __future__ import annotations

import torch
from torch import Tensor


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
