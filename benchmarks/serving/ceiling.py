"""The ceiling: the predictor alone, one process on each core, no HTTP."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.serving.load import Case, LoadResult, shuffled
from benchmarks.serving.processes import ProcessTree
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor

Latencies = dict[str, list[float]]


class Ceiling:
    """Processes that hold a predictor each and predict when asked; a context manager."""

    def __init__(self, bundle: Path, cases: Sequence[Case], processes: int) -> None:
        """Start them and wait until they are warm."""
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(processes)]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_answer, args=(theirs, bundle, list(cases)), daemon=True) for _, theirs in pipes
        ]
        for process in self._processes:
            process.start()
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> Ceiling:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def tree(self, processes: int) -> ProcessTree:
        """Return the first so many processes."""
        return ProcessTree([process.pid for process in self._processes[:processes] if process.pid])

    def run(self, processes: int, seconds: float, warm_up: float, seed: int) -> LoadResult:
        """Let the first so many processes predict at once, each the same mix in an order of its own.

        Returns: the answers, and in place of the load's own cost the processor seconds of the predictors.
        """
        pipes = self._pipes[:processes]
        for number, pipe in enumerate(pipes):
            pipe.send((seconds, warm_up, 1000 * seed + number))
        latencies: Latencies = {}
        cpu_s = 0.0
        for pipe in pipes:
            part, spent = pipe.recv()
            cpu_s += spent
            for subset, values in part.items():
                latencies.setdefault(subset, []).extend(values)
        return LoadResult(seconds, latencies, cpu_s)


def _answer(pipe: Connection, bundle: Path, cases: Sequence[Case]) -> None:
    """Predict when asked to; the settings are those of a worker."""
    predictor = Predictor(Bundle.load(bundle))
    predictor.verify()
    gc.freeze()
    pipe.send(None)
    while True:
        seconds, warm_up, seed = pipe.recv()
        order = shuffled(cases, seed)
        _predict(predictor, order, warm_up)
        before = time.process_time()
        latencies = _predict(predictor, order, seconds)
        pipe.send((latencies, time.process_time() - before))


def _predict(predictor: Predictor, order: Iterator[Case], seconds: float) -> Latencies:
    """Predict until the time is up; an answer that comes later does not count."""
    latencies, end = Latencies(), time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        case = next(order)
        predictor.predict([case.sample])
        if (ended := time.perf_counter()) < end:
            latencies.setdefault(case.subset, []).append(1000 * (ended - began))
    return latencies
