"""Decode values into records, here or in processes of their own. No torch: each of those processes is small.

Threads do not help: decoding a small file is mostly Python. Measured on two cores: of JPEGs of 128x128, two threads decode
1.1 times as many as one and two processes 1.9 times; of WAV files of 10 s, .9 and 1.3 times.

The processes are started by subprocess and not by multiprocessing, which would run the caller's script again in each of
them, unless it is written with that in mind.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from mla_serve.errors import DataError, InputError
from mla_serve.inputs import Array, Input, Payload
from mla_serve.table.cells import Value
from mla_serve.table.check_files import find_column
from mla_serve.table.dataset import read_payload
from mla_serve.train.data.fingerprints import Fingerprint, fingerprint
from mla_serve.train.data.packing import packing_of

CHUNK = 32  # values that a process decodes at a time
FEWEST = 256  # files for which it is worth starting another process, which takes half a second
START = "import sys; sys.path[:] = {path!r}; from mla_serve.train.data.decode_values import serve; serve()"
CRASHED = "its decoder crashed on this file; repair or remove it"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded value: the hash of what it was decoded from, its records, and its fingerprint."""

    key: bytes
    records: Array
    fingerprint: Fingerprint


@dataclasses.dataclass(frozen=True)
class Failed:
    """Why a value cannot be decoded, and the column of the cell at fault where that is known."""

    message: str
    column: str | None = None


Result = Decoded | Failed
S = TypeVar("S")
T = TypeVar("T")


def hash_payload(payload: Payload) -> bytes:
    """Return the sha256 of a payload."""
    return hashlib.sha256(payload if isinstance(payload, bytes) else b"value " + repr(payload).encode()).digest()


def decode_values(spec: Input, name: str, values: Sequence[Value]) -> list[Result]:
    """Decode values of one modality. Args: name, of the modality."""
    return [_decode(spec, name, value) for value in values]


def _decode(spec: Input, name: str, value: Value) -> Result:
    try:
        payload = read_payload(value)
        windows = spec.decode(payload, name)
    except (InputError, DataError) as error:
        message = error.message if isinstance(error, InputError) else str(error)
        return Failed(message, find_column(error, name))
    return Decoded(hash_payload(payload), packing_of(spec).pack(windows), fingerprint(spec.kind, payload, windows))


class Decoders:
    """Processes that decode; with a count of 1, this one does it."""

    def __init__(self, count: int) -> None:
        """Set the number of processes; they are started when they are needed."""
        self.count = count
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._started: list[_Process] = []

    def __enter__(self) -> Decoders:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        for process in self._started:
            process.end()

    def decode(self, spec: Input, name: str, values: Sequence[Value]) -> Iterator[list[Result]]:
        """Yield the results of the values, in their order, some at a time."""
        chunks = [values[at : at + CHUNK] for at in range(0, len(values), CHUNK)]
        if self.count == 1:
            yield from (decode_values(spec, name, chunk) for chunk in chunks)
            return
        while len(self._started) < self.count:
            self._started.append(_Process())
            self._idle.put(self._started[-1])
        with ThreadPoolExecutor(self.count) as pool:
            yield from _in_order(pool, lambda chunk: self._ask(spec, name, chunk), chunks, 3 * self.count)

    def _ask(self, spec: Input, name: str, values: Sequence[Value]) -> list[Result]:
        process = self._idle.get()
        try:
            return process.decode(spec, name, values)
        finally:
            self._idle.put(process)


def _in_order(pool: ThreadPoolExecutor, call: Callable[[S], T], items: Iterable[S], ahead: int) -> Iterator[T]:
    """Map in threads, but no more than `ahead` items before the one that is taken, so that results do not pile up."""
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _Process:
    """A process that runs `serve`, and starts again when a decoder has crashed it."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-c", START.format(path=sys.path)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **threads}
        )

    def decode(self, spec: Input, name: str, values: Sequence[Value]) -> list[Result]:
        """Decode some values. Where that ends the process, the value that did it has failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((spec, name, list(values)), self._process.stdin)
            self._process.stdin.flush()
            results: list[Result] | Exception = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self.end()
            self._start()
            if len(values) == 1:
                return [Failed(CRASHED)]
            return [result for value in values for result in self.decode(spec, name, [value])]
        if isinstance(results, Exception):
            raise results
        return results

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Decode what arrives on standard input until it is closed. Whatever a library prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which closes standard input
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            spec, name, values = pickle.load(given)
        except EOFError:
            return
        try:
            results: list[Result] | Exception = decode_values(spec, name, values)
        except Exception as error:  # a bug, which the parent raises
            results = error
        pickle.dump(results, answers)
        answers.flush()


def count_processes(files: int, threads: int | None) -> int:
    """Choose how many processes decode so many files: all cores, or this process alone where there is little to do."""
    return max(1, min(threads or len(os.sched_getaffinity(0)), files // FEWEST))
