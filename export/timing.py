"""How many times faster one graph is than another. The timings are interleaved, so that both meet the same load."""

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
DIFFERENT_BATCHES = 8


def times_faster(sessions: Mapping[str, Session], windows: Array) -> dict[str, dict[str, float]]:
    """Time sessions of one thread against the first: {label: {batch size: how many times faster}}, medians.

    On a CPU the processor time of the calling thread is measured, which other processes hardly disturb.
    """
    first, *_ = sessions.values()
    clock = time.thread_time if first.providers[0] == "CPUExecutionProvider" else time.perf_counter
    ratios: dict[str, dict[str, float]] = {label: {} for label in sessions}
    for size in BATCHES:
        batches = [windows[np.arange(at, at + size) % len(windows)] for at in range(0, DIFFERENT_BATCHES * size, size)]
        runs = _count_runs(first, batches, clock)
        rounds = [
            {label: _seconds(session, batches, runs, clock) for label, session in sessions.items()}
            for _ in range(REPEATS + 1)
        ][1:]
        base = next(iter(sessions))
        for label in sessions:
            ratios[label][str(size)] = float(np.median([each[base] / each[label] for each in rounds]))
    return ratios


def overall(ratios: Mapping[str, float]) -> float:
    """Return the geometric mean of the ratios over the batch sizes."""
    return math.prod(ratios.values()) ** (1 / len(ratios))


def _count_runs(session: Session, batches: list[Array], clock: Callable[[], float]) -> int:
    """Return how often to run the batches so that the clock can resolve one timing."""
    session.run(batches[0])
    return max(1, math.ceil(LEAST_SECONDS / max(_seconds(session, batches, 1, clock), 1e-6)))


def _seconds(session: Session, batches: list[Array], runs: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(runs):
        for batch in batches:
            session.run(batch)
    return clock() - begin
