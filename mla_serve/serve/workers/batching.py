"""Micro-batches: requests that need the same graph at the same time run it together.

Each batched modality has a MicroBatcher. A request that finds it idle runs the graph at once, for itself alone. Requests
that come during that run wait. When it ends, the first of them runs the graph for all that wait, up to the largest batch.
So no request waits for a batch to fill, and none waits for a modality that it did not send; under load the batches grow by
themselves. There is no thread of its own for a batcher: the threads of the worker pool run the graph for each other, and
their number bounds how many can wait.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

import numpy as np

from mla_serve.errors import ConfigError
from mla_serve.inputs import Array
from mla_serve.serve.problems import DeadlineExceeded
from mla_serve.serve.workers.stopwatch import Stopwatch

GPU_BATCH_SIZE = 32  # not tuned by a measurement
MAX_BATCH_SIZE = 1024
Encode = Callable[[str, Sequence[Array]], Array]


class _Call:
    """The samples of one request that wait to be encoded, and the queue that brings its answer.

    The answer is its features, an error, or None: the call is the first that waits, and its thread runs the next batch.
    """

    def __init__(self, arrays: Sequence[Array], watch: Stopwatch) -> None:
        self.arrays = arrays
        self.watch = watch
        self.windows = sum(map(len, arrays))
        self.answer: SimpleQueue[Array | Exception | None] = SimpleQueue()

    def is_awaited(self) -> bool:
        """Whether the client still waits; if not, the call is answered with that error."""
        try:
            self.watch.check()
        except DeadlineExceeded as error:
            self.answer.put(error)
            return False
        return True


class MicroBatcher:
    """One modality's graph, which one thread at a time runs, for its own request and for those that wait."""

    def __init__(self, run: Callable[[Sequence[Array]], Array], max_windows: int) -> None:
        """Start idle. Args: max_windows, of a batch; a single request with more runs alone."""
        self._run = run
        self._max_windows = max_windows
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._busy = False

    def encode(self, arrays: Sequence[Array], watch: Stopwatch) -> Array:
        """Encode B samples of (W, *shape) -> (B, D), possibly in one run with those of other requests.

        Raises: DeadlineExceeded when nobody waits any more; what the graph raises for these samples alone.
        """
        call = _Call(arrays, watch)
        with self._lock:
            self._waiting.append(call)
            runs_now, self._busy = not self._busy, True
        answer = None if runs_now else call.answer.get()
        if answer is None:
            self._run_batch()
            answer = call.answer.get()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def _run_batch(self) -> None:
        """Run the graph for the first calls that wait, the caller's among them, and let the next one run its batch."""
        try:
            self._answer(self._take_batch())
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                if self._busy:
                    self._waiting[0].answer.put(None)

    def _take_batch(self) -> list[_Call]:
        with self._lock:
            calls = [self._waiting.popleft()]
            room = self._max_windows - calls[0].windows
            while self._waiting and self._waiting[0].windows <= room:
                calls.append(self._waiting.popleft())
                room -= calls[-1].windows
        return calls

    def _answer(self, calls: Sequence[_Call]) -> None:
        calls = [call for call in calls if call.is_awaited()]
        if not calls:
            return
        try:
            features = self._run([array for call in calls for array in call.arrays])
            parts = np.split(features, np.cumsum([len(call.arrays) for call in calls])[:-1])
        except Exception as error:
            if len(calls) == 1:
                calls[0].answer.put(error)
                return
            for call in calls:  # one by one, so that only the request whose samples fail gets the error
                self._answer([call])
            return
        for call, part in zip(calls, parts, strict=True):
            call.answer.put(part)


class Batching:
    """The micro-batchers of the modalities that are batched."""

    def __init__(self, encode: Encode, batch_sizes: Mapping[str, int]) -> None:
        """Batch each modality whose batch size is above 1. Args: encode, runs a modality's graph."""
        self._encode = encode
        self._batchers = {
            name: MicroBatcher(functools.partial(encode, name), size) for name, size in batch_sizes.items() if size > 1
        }

    def encode(self, watch: Stopwatch, name: str, arrays: Sequence[Array]) -> Array:
        """Encode samples of one modality, in its micro-batcher if it has one."""
        batcher = self._batchers.get(name)
        return batcher.encode(arrays, watch) if batcher else self._encode(name, arrays)


def parse_batch_sizes(text: str, names: Sequence[str], *, gpu: bool) -> dict[str, int]:
    """Read MLA_BATCH: the most windows that one run of a modality's graph takes from several requests; 1 means no batches.

    Args: text, "auto", "off", a number for all, or NAME=NUMBER separated by commas; a modality that is left out has 1.
    Raises: ConfigError.
    """
    if text in ("auto", "off"):
        return dict.fromkeys(names, GPU_BATCH_SIZE if gpu and text == "auto" else 1)
    if "=" not in text:
        return dict.fromkeys(names, _batch_size(text, text))
    sizes = dict.fromkeys(names, 1)
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name.strip() not in sizes:
            raise ConfigError(
                f"MLA_BATCH={text!r}: no modality is called {name.strip()!r}; it reads {', '.join(names)}"
            )
        sizes[name.strip()] = _batch_size(number, text)
    return sizes


def _batch_size(number: str, text: str) -> int:
    number = number.strip()
    if number.isascii() and number.isdigit() and len(number) < 5 and 1 <= int(number) <= MAX_BATCH_SIZE:
        return int(number)
    raise ConfigError(
        f"MLA_BATCH={text!r}: expected auto, off, a number from 1 to {MAX_BATCH_SIZE}, or such as image=8,text=16"
    )
