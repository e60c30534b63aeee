"""Micro-batches: requests that want the same graph at the same time run it together.

A lane is one modality's graph. Who finds it idle runs it at once; who comes meanwhile waits, and when that run ends the
first of them runs it for all that wait, up to the lane's cap. So nobody waits for a batch to fill, and a request waits
for no modality that it has not sent. It happens in the bench's threads, whose number bounds how many can wait.
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

GPU_BATCH_SIZE = 32  # not measured: no GPU was at hand
MOST = 1024
Encode = Callable[[str, Sequence[Array]], Array]


class _Call:
    """What one request wants encoded, and the queue on which it hears: its features, an error, or None to take the lead."""

    def __init__(self, arrays: Sequence[Array], watch: Stopwatch) -> None:
        self.arrays = arrays
        self.watch = watch
        self.windows = sum(map(len, arrays))
        self.news: SimpleQueue[Array | Exception | None] = SimpleQueue()

    def is_awaited(self) -> bool:
        try:
            self.watch.check()
        except DeadlineExceeded as late:
            self.news.put(late)
            return False
        return True


class MicroBatcher:
    """One graph, which one thread at a time runs, for itself and for those that wait."""

    def __init__(self, run: Callable[[Sequence[Array]], Array], cap: int) -> None:
        """Start idle; `cap` is the most windows of a run, but for a single request with more."""
        self._run = run
        self._cap = cap
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._busy = False

    def encode(self, arrays: Sequence[Array], watch: Stopwatch) -> Array:
        """Encode B samples of (W, *shape), possibly together with others' -> (B, D).

        Raises: DeadlineExceeded when nobody waits for it any more; what the graph raises on these samples alone.
        """
        call = _Call(arrays, watch)
        with self._lock:
            self._waiting.append(call)
            leads, self._busy = not self._busy, True
        news = None if leads else call.news.get()
        if news is None:
            self._lead()
            news = call.news.get()
        if isinstance(news, Exception):
            raise news
        assert news is not None
        return news

    def _lead(self) -> None:
        """Run for the first that wait, the caller among them, and hand the lead on."""
        try:
            self._answer(self._take())
        finally:
            with self._lock:
                self._busy = bool(self._waiting)
                if self._busy:
                    self._waiting[0].news.put(None)

    def _take(self) -> list[_Call]:
        with self._lock:
            calls = [self._waiting.popleft()]
            room = self._cap - calls[0].windows
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
                calls[0].news.put(error)
                return
            for call in calls:  # one by one, so that it meets only whose samples it is
                self._answer([call])
            return
        for call, part in zip(calls, parts, strict=True):
            call.news.put(part)


class Batching:
    """The lanes of the modalities that are batched."""

    def __init__(self, encode: Encode, caps: Mapping[str, int]) -> None:
        """Give each modality with a cap above 1 a lane; `encode` runs a modality's graph."""
        self._encode = encode
        self._lanes = {
            name: MicroBatcher(functools.partial(encode, name), cap) for name, cap in caps.items() if cap > 1
        }

    def encode(self, watch: Stopwatch, name: str, arrays: Sequence[Array]) -> Array:
        """Encode samples of one modality, in its lane if it has one."""
        lane = self._lanes.get(name)
        return lane.encode(arrays, watch) if lane else self._encode(name, arrays)


def parse_batch_sizes(text: str, names: Sequence[str], *, gpu: bool) -> dict[str, int]:
    """Read MLA_BATCH: the most windows that one run of a modality's graph takes from several requests, 1 for none.

    Args: text, "auto", "off", a number for all, or NAME=NUMBER separated by commas, where who is left out has 1.
    Raises: ConfigError.
    """
    if text in ("auto", "off"):
        return dict.fromkeys(names, GPU_BATCH_SIZE if gpu and text == "auto" else 1)
    if "=" not in text:
        return dict.fromkeys(names, _cap(text, text))
    caps = dict.fromkeys(names, 1)
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name.strip() not in caps:
            raise ConfigError(
                f"MLA_BATCH={text!r}: no modality is called {name.strip()!r}; it reads {', '.join(names)}"
            )
        caps[name.strip()] = _cap(number, text)
    return caps


def _cap(number: str, text: str) -> int:
    number = number.strip()
    if number.isascii() and number.isdigit() and len(number) < 5 and 1 <= int(number) <= MOST:
        return int(number)
    raise ConfigError(f"MLA_BATCH={text!r}: expected auto, off, a number from 1 to {MOST}, or such as image=8,text=16")
