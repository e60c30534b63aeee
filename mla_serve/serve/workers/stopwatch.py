"""Time the stages of one request, bound what decoding may cost, and stop the work once nobody waits for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from mla_serve.serve.problems import DeadlineExceeded, TooCostly


class Stopwatch:
    """The stages of one request. Its work runs in a thread; the event loop stops it from outside.

    A thread cannot be killed, so the work has to look: it calls `lap` or `check` between two stages, which raise once
    `stop` was called. The deadline of a request has one home, `Deadline` in http/deadline.py: when it passes, the
    wait for the answer is cancelled, and that calls `stop`.
    """

    def __init__(self, decoding_s: float = float("inf")) -> None:
        """Start. Args: decoding_s, the processor seconds that decoding may take."""
        self._decoding_left = decoding_s
        self._last = time.perf_counter()
        self._stopped = False
        self.laps: list[tuple[str, float]] = []

    def lap(self, stage: str) -> None:
        """Note that a stage has ended.

        Raises: DeadlineExceeded.
        """
        now = time.perf_counter()
        self.laps.append((stage, now - self._last))
        self._last = now
        self.check()

    def check(self) -> None:
        """Go on only if somebody waits for the answer.

        Raises: DeadlineExceeded.
        """
        if self._stopped:
            raise DeadlineExceeded("the time for this request ran out")

    def stop(self) -> None:
        """Let the next check fail: nobody waits any more."""
        self._stopped = True

    @contextlib.contextmanager
    def decoding(self, field: str) -> Iterator[None]:
        """Subtract the processor time of this thread from what the request may spend on decoding.

        Raises: TooCostly if nothing is left at the start. One file is not interrupted: its header bounds what it costs.
        """
        if self._decoding_left <= 0:
            raise TooCostly(field, "decoding what was sent takes too long; send less at once, or smaller files")
        start = time.thread_time()
        try:
            yield
        finally:
            self._decoding_left -= time.thread_time() - start

    def header(self) -> dict[str, str]:
        """Return the stages as a Server-Timing header, in milliseconds."""
        return {"Server-Timing": ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in self.laps)}
