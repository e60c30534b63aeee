"""The time that training may take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Tell how far a run with a time limit is. `reserved`: seconds of it that are kept for validating and saving at the end."""

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        """Start now."""
        self._limit, self._now, self._start = 60 * minutes, now, now()
        self.reserved = 0.0

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start, those before an interruption included."""
        return self._now() - self._start

    def add(self, seconds: float) -> None:
        """Count seconds that were spent before the start, such as those of an interrupted run."""
        self._start -= seconds

    def step(self, total: int) -> int:
        """Return how many of `total` steps may have been taken by now if they all are to fit into the limit."""
        usable = max(self._limit - self.reserved, 1e-9)
        return min(total, int(total * self.elapsed / usable))
