"""The interval of a share of rows, also where all of them or none count. Numpy only.

Resampling rows that are all right gives 1 every time, as if no row could ever be wrong.
"""

from __future__ import annotations

import math

import numpy as np

LEVEL = 0.95
HALVINGS = 50
REACH = 10  # standard deviations beyond which the probabilities of more hits add nothing


def exact_interval(hits: int, rows: int) -> list[float]:
    """Return the 95 % interval of a share, of which `hits` of `rows` independent rows were drawn.

    It contains the true share in at least 95 of 100 cases, for any share and number of rows.
    Source: Clopper and Pearson, Biometrika 1934.
    """
    return [_lowest(hits, rows), 1 - _lowest(rows - hits, rows)]


def wider(first: list[float], second: list[float]) -> list[float]:
    """Return the interval from the lower of two lower ends to the higher of two upper ends."""
    return [min(first[0], second[0]), max(first[1], second[1])]


def _lowest(hits: int, rows: int) -> float:
    """Return the share with which `hits` or more occur with a probability of 2.5 %; 0 without a hit."""
    low, high = 0.0, hits / rows if rows else 0.0
    for _ in range(HALVINGS if hits else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(hits, rows, middle) < (1 - LEVEL) / 2 else (low, middle)
    return low


def _at_least(hits: int, rows: int, share: float) -> float:
    """Return the probability of `hits` or more of `rows`, where each has the probability `share`, at most hits / rows."""
    most = min(rows, hits + int(REACH * math.sqrt(rows)) + REACH)
    counts = np.arange(hits, most + 1)
    first = math.lgamma(rows + 1) - math.lgamma(hits + 1) - math.lgamma(rows - hits + 1)
    steps = np.log((rows - counts[:-1]) / counts[1:])  # from one binomial coefficient to the next
    logs = first + np.concatenate([[0.0], np.cumsum(steps)]) + counts * math.log(share)
    return float(np.exp(logs + (rows - counts) * math.log1p(-share)).sum())
