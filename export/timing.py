"""How many times faster one graph is than another: interleaved, so that both meet the same weather."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from mla_serve.bundle.runtime import Session
from mla_serve.inputs import Array

BATCHES = (1, 8)
REPEATS = 15
LEAST_SECONDS = 0.005  # of one timing
VARIETY = 8  # different batches


def times_faster(sessions: Mapping[str, Session], windows: Array) -> dict[str, dict[str, float]]:
    """Time sessions of one thread against the first of them: {label: {batch size: how many times faster}}, medians.

    On a CPU the processor time of the calling thread counts, which neighbours on the machine hardly disturb.
    """
    first, *_ = sessions.values()
    clock = time.thread_time if first.providers[0] == "CPUExecutionProvider" else time.perf_counter
    ratios: dict[str, dict[str, float]] = {label: {} for label in sessions}
    for size in BATCHES:
        batches = [windows[np.arange(at, at + size) % len(windows)] for at in range(0, VARIETY * size, size)]
        runs = _enough(first, batches, clock)
        rounds = [
            {label: _seconds(session, batches, runs, clock) for label, session in sessions.items()}
            for _ in range(REPEATS + 1)
        ][1:]
        base = next(iter(sessions))
        for label in sessions:
            ratios[label][str(size)] = float(np.median([each[base] / each[label] for each in rounds]))
    return ratios


def overall(ratios: Mapping[str, float]) -> float:
    """Sum a label's ratios up: their geometric mean."""
    return math.prod(ratios.values()) ** (1 / len(ratios))


def _enough(session: Session, batches: list[Array], clock: Callable[[], float]) -> int:
    """Count how often to go through the batches for a timing that the clock can resolve."""
    session.run(batches[0])
    return max(1, math.ceil(LEAST_SECONDS / max(_seconds(session, batches, 1, clock), 1e-6)))


def _seconds(session: Session, batches: list[Array], runs: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(runs):
        for batch in batches:
            session.run(batch)
    return clock() - begin
