"""Micro-batches: a lone request runs at once, waiting ones run together, and none pays for the error of another."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Hooks, Predictor
from mla_serve.errors import ConfigError
from mla_serve.inputs import Array, Payload
from mla_serve.serve.problems import DeadlineExceeded
from mla_serve.serve.workers.batching import GPU_BATCH_SIZE, Batching, MicroBatcher, parse_batch_sizes
from mla_serve.serve.workers.stopwatch import Stopwatch

NAMES = ("image", "text")


class Graph:
    """A graph that doubles, keeps the sizes of its batches, and can be held up; 13 is a sample that it fails on."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()

    def __call__(self, arrays: Sequence[Array]) -> Array:
        windows = np.concatenate(arrays)
        self.batches.append(len(arrays))
        self.inside.set()
        assert self.gate.wait(30)
        if 13 in windows:
            raise ArithmeticError("thirteen")
        return 2 * windows


def ask(batcher: MicroBatcher, *values: float, watch: Stopwatch | None = None) -> Array:
    return batcher.encode([np.array([[value]]) for value in values], watch or Stopwatch())


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Waiters:
    """Threads that ask a batcher one after the other while its graph is held up by a first one."""

    def __init__(self, max_windows: int) -> None:
        self.graph = Graph()
        self.batcher = MicroBatcher(self.graph, max_windows)
        self._pool = ThreadPoolExecutor(16)
        self.graph.gate.clear()
        self.first = self._pool.submit(ask, self.batcher, 0)
        assert self.graph.inside.wait(30)

    def ask(self, *values: float, watch: Stopwatch | None = None) -> Future[Array]:
        count = len(self.batcher._waiting)
        future = self._pool.submit(ask, self.batcher, *values, watch=watch)
        wait_until(lambda: len(self.batcher._waiting) > count)
        return future

    def release(self) -> None:
        self.graph.gate.set()
        self._pool.shutdown()


def test_a_lone_request_runs_at_once() -> None:
    graph = Graph()
    batcher = MicroBatcher(graph, 8)
    assert [ask(batcher, value).item() for value in (1, 2, 3)] == [2, 4, 6]
    assert graph.batches == [1, 1, 1]


def test_requests_that_come_during_a_run_share_the_next_one() -> None:
    waiters = Waiters(max_windows=8)
    futures = [waiters.ask(value) for value in range(1, 6)]
    waiters.release()
    assert [future.result().item() for future in futures] == [2, 4, 6, 8, 10]
    assert waiters.graph.batches == [1, 5]


def test_a_batch_holds_no_more_than_its_cap() -> None:
    waiters = Waiters(max_windows=4)
    pair, triple, single = waiters.ask(1, 2), waiters.ask(3, 4, 5), waiters.ask(6)
    many = waiters.ask(*range(10, 13), 14, 15, 16)
    waiters.release()
    assert pair.result().ravel().tolist() == [2, 4]
    assert triple.result().ravel().tolist() == [6, 8, 10]
    assert single.result().item() == 12
    assert len(many.result()) == 6
    assert waiters.graph.batches == [1, 2, 4, 6]  # in turn: the single one does not overtake


def test_an_error_reaches_only_the_request_that_caused_it() -> None:
    waiters = Waiters(max_windows=8)
    good, bad, other = waiters.ask(1), waiters.ask(13), waiters.ask(2)
    waiters.release()
    assert (good.result().item(), other.result().item()) == (2, 4)
    with pytest.raises(ArithmeticError, match="thirteen"):
        bad.result()
    assert ask(waiters.batcher, 5).item() == 10


def test_an_output_that_cannot_be_split_fails_every_request_of_its_batch() -> None:
    waiters = Waiters(max_windows=8)
    waiters.batcher._run = lambda arrays: np.array(0.0)
    futures = [waiters.ask(1), waiters.ask(2)]
    waiters.release()
    for future in futures:
        with pytest.raises((ValueError, IndexError)):
            future.result(timeout=10)
    waiters.batcher._run = waiters.graph
    assert ask(waiters.batcher, 5).item() == 10


@pytest.mark.parametrize("who", [0, 1, 2])
def test_what_nobody_waits_for_is_not_run(who: int) -> None:
    waiters = Waiters(max_windows=8)
    watches = [Stopwatch() for _ in range(3)]
    futures = [waiters.ask(value, watch=watch) for value, watch in enumerate(watches)]
    watches[who].stop()
    waiters.release()
    for value, future in enumerate(futures):
        if value == who:
            with pytest.raises(DeadlineExceeded):
                future.result()
        else:
            assert future.result().item() == 2 * value
    assert waiters.graph.batches == [1, 2]


def test_the_batcher_goes_on_when_every_client_has_left() -> None:
    waiters = Waiters(max_windows=1)
    watches = [Stopwatch() for _ in range(3)]
    futures = [waiters.ask(1, watch=watch) for watch in watches]
    for watch in watches:
        watch.stop()
    waiters.release()
    assert all(isinstance(future.exception(), DeadlineExceeded) for future in futures)
    assert waiters.graph.batches == [1]
    assert ask(waiters.batcher, 4).item() == 8


def test_under_load_everybody_gets_their_own() -> None:
    graph = Graph()
    batcher = MicroBatcher(graph, 4)
    with ThreadPoolExecutor(12) as pool:
        answers = pool.map(lambda value: ask(batcher, value, -value).ravel().tolist(), range(100, 1100))
        assert list(answers) == [[2 * value, -2 * value] for value in range(100, 1100)]
    assert max(graph.batches) <= 4
    assert sum(graph.batches) == 2000


def test_an_answer_does_not_depend_on_its_batch(
    tiny_bundle: Path, make_sample: Callable[[int], dict[str, Payload]]
) -> None:
    predictor = Predictor(Bundle.load(tiny_bundle))
    batching = Batching(predictor.encode, dict.fromkeys(predictor.names, 8))
    samples = [predictor.decode(make_sample(seed)) for seed in range(24)]

    def answer(sample: dict[str, Array]) -> dict[str, float]:
        watch = Stopwatch()
        outputs = predictor.run_graphs([sample], Hooks(encode=functools.partial(batching.encode, watch)))
        return predictor.answer_from(outputs)[0].by_label()

    with ThreadPoolExecutor(8) as pool:
        for sample, together in zip(samples, pool.map(answer, samples), strict=True):
            assert together == pytest.approx(
                predictor.answer_from(predictor.run_graphs([sample]))[0].by_label(), abs=1e-5
            )


@pytest.mark.parametrize(
    ("text", "gpu", "sizes"),
    [
        ("auto", False, {"image": 1, "text": 1}),
        ("auto", True, {"image": GPU_BATCH_SIZE, "text": GPU_BATCH_SIZE}),
        ("off", True, {"image": 1, "text": 1}),
        ("8", False, {"image": 8, "text": 8}),
        ("text=16", True, {"image": 1, "text": 16}),
        (" image = 2 , text=1 ", False, {"image": 2, "text": 1}),
    ],
)
def test_caps_are_read(text: str, gpu: bool, sizes: dict[str, int]) -> None:
    assert parse_batch_sizes(text, NAMES, gpu=gpu) == sizes


@pytest.mark.parametrize(
    "text", ["", "on", "0", "-1", "2.5", "9999", "audio=4", "text=", "text=x", "text=4,", "text=²"]
)
def test_caps_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^MLA_BATCH="):
        parse_batch_sizes(text, NAMES, gpu=False)
