"""Many calls: results in order, bounded concurrency, a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Literal, TypeVar, get_args

from mla_serve.errors import MlaServeError
from mla_serve.payloads import Value

T = TypeVar("T")
Sample = Mapping[str, Value | None]
OnError = Literal["raise", "return"]


class Queue:
    """Gives samples to threads or tasks one by one, and collects the results in the order of the samples."""

    def __init__(self, samples: Iterable[Sample], on_error: OnError, advance: Callable[[], None]) -> None:
        """Read samples lazily. Args: on_error, see Client.predict_many; advance, called after each sample.

        Raises: ValueError for another on_error.
        """
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error={on_error!r}: expected one of {', '.join(map(repr, get_args(OnError)))}")
        self._samples = iter(enumerate(samples))
        self._lock = threading.Lock()
        self._results: dict[int, object] = {}
        self._on_error = on_error
        self._advance = advance
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        """Yield the remaining samples with their index, until none is left or a call has failed."""
        while self.failure is None:
            try:
                with self._lock:
                    item = next(self._samples, None)
            except (
                Exception
            ) as error:  # from the iterable of the caller; `results` raises it after the running calls have ended
                self.failure = error
                return
            if item is None:
                return
            yield item

    @contextlib.contextmanager
    def place(self, index: int) -> Iterator[Callable[[object], None]]:
        """Yield the function that stores the result of a sample; store an error of the block instead."""
        try:
            yield lambda result: self._results.__setitem__(index, result)
        except MlaServeError as error:
            if self._on_error == "raise":
                self.failure = self.failure or error
            self._results[index] = error
        except Exception as error:
            self.failure = self.failure or error
        with self._lock:
            self._advance()

    def results(self) -> list[object]:
        """Return the results in the order of the samples.

        Raises: the first error, with on_error "raise".
        """
        if self.failure is not None:
            raise self.failure
        return [self._results[index] for index in sorted(self._results)]


@contextlib.contextmanager
def progress_bar(samples: Iterable[object], wanted: bool | None) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error, by default only on a terminal; yield the function that advances it by one."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(samples) if isinstance(samples, Sized) else None)
        yield lambda: progress.advance(task)
