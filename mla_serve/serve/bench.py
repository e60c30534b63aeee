"""Where answers are worked out: a few threads with a bounded queue before them.

Work that nobody waits for any more is dropped: at once while it queues, between two stages once it runs. The queue is
of coroutines, not of the executor's work items, so that what is dropped frees its memory at once.

Beyond the queue the answer is 503 and not 429: it says how the worker is, not what this client did.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import DeadlineExceeded, Overloaded, TooCostly

Result = TypeVar("Result")


class Stopwatch:
    """Time the stages of one request, and stop it between two of them once nobody waits for it any more."""

    def __init__(self, seconds: float, decoding_s: float = float("inf")) -> None:
        """Start; `seconds` from now is too late, and so is decoding for longer than `decoding_s` of processor time."""
        self._decoding_left = decoding_s
        self._last = time.perf_counter()
        self._end = self._last + seconds
        self.laps: list[tuple[str, float]] = []

    def lap(self, stage: str) -> None:
        """Note that a stage is done.

        Raises: DeadlineExceeded.
        """
        now = time.perf_counter()
        self.laps.append((stage, now - self._last))
        self._last = now
        self.check()

    def check(self) -> None:
        """Go on only if there is time left.

        Raises: DeadlineExceeded.
        """
        if time.perf_counter() > self._end:
            raise DeadlineExceeded("the time for this request ran out")

    @contextlib.contextmanager
    def decoding(self, field: str) -> Iterator[None]:
        """Take what decoding costs off what this request may spend on it; other threads do not count.

        Raises: TooCostly when nothing is left to begin with. One file alone is bounded by what its header says.
        """
        if self._decoding_left <= 0:
            raise TooCostly(field, "decoding what was sent takes too long; send less at once, or smaller files")
        start = time.thread_time()
        try:
            yield
        finally:
            self._decoding_left -= time.thread_time() - start

    def stop(self) -> None:
        """Let the next check fail: nobody waits any more."""
        self._end = float("-inf")

    def header(self) -> dict[str, str]:
        """Return the stages as a Server-Timing header, in milliseconds."""
        return {"Server-Timing": ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in self.laps)}


class Bench:
    """Some threads, and who waits for them. Everything but the jobs happens on the event loop."""

    def __init__(self, threads: int, max_queue: int) -> None:
        """Start with nobody waiting."""
        self.waiting = 0
        self.max_queue = max_queue
        self._threads = threads
        self._slots = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
        self._started: dict[object, float] = {}

    def check(self) -> None:
        """Refuse a request for which there is no room.

        Raises: Overloaded.
        """
        if self.waiting >= self.max_queue and self._slots.locked():
            meters().refused.labels("queue").inc()
            raise Overloaded(f"{self.waiting} requests wait already; send it again after the time in Retry-After")

    async def run(self, job: Callable[[Stopwatch], Result], watch: Stopwatch, receive: Receive) -> Result:
        """Do a job in a thread, when it is its turn, unless its client leaves before.

        Raises: Overloaded; ClientDisconnect; what the job raises.
        """
        self.check()
        task = asyncio.current_task()
        assert task is not None
        leaving = asyncio.ensure_future(_until_gone(receive))
        leaving.add_done_callback(lambda _: task.cancel() if waiting and _ended(leaving) else None)
        waiting = True
        try:
            return await self._in_turn(job, watch)
        except asyncio.CancelledError:
            if not _ended(leaving) or task.uncancel():
                raise  # by somebody else: the deadline or the end of the process
            meters().dropped.inc()
            raise ClientDisconnect from None
        finally:
            waiting = False
            watch.stop()
            leaving.cancel()

    def longest(self) -> float:
        """Return for how many seconds the job that runs longest has been running; 0 when none runs."""
        return time.monotonic() - min(self._started.values()) if self._started else 0.0

    def close(self) -> None:
        """Take no more jobs; those that run come to their end."""
        self._pool.shutdown(wait=False)

    async def _in_turn(self, job: Callable[[Stopwatch], Result], watch: Stopwatch) -> Result:
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        loop, mark = asyncio.get_running_loop(), object()
        self._started[mark] = time.monotonic()
        work = self._pool.submit(contextvars.copy_context().run, _begin, job, watch)
        work.add_done_callback(lambda _: _call(loop, self._leave, mark))
        return await asyncio.wrap_future(work)

    def _leave(self, mark: object) -> None:
        del self._started[mark]
        self._slots.release()


def _begin(job: Callable[[Stopwatch], Result], watch: Stopwatch) -> Result:
    watch.lap("queue")
    return job(watch)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _ended(leaving: asyncio.Future[None]) -> bool:
    return leaving.done() and not leaving.cancelled() and leaving.exception() is None


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[object], None], mark: object) -> None:
    """Call back on the loop, if it still runs: a thread may outlive it at the end of the process."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, mark)
