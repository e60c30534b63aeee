"""Where answers are worked out: a few threads with a bounded queue before them.

Work that nobody waits for any more is dropped: at once while it queues, between two stages once it runs. What is dropped
frees its memory at once, whatever stands in the queue before it.

An executor would do the same for twice the processor time: two wake-ups of the loop and two futures for each request.

Beyond the queue the answer is 503 and not 429: it says how the worker is, not what this client did.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from mla_serve.errors import MlaServeError
from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import DeadlineExceeded, Overloaded, TooCostly

GOODBYE_S = 5.0  # at the end of the process, for all that still runs to come to its next stage
LEAVING_S = 0.05  # from here on it is looked whether the client is still there: most are answered before
Result = TypeVar("Result")
Call = Callable[[], None]


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


class _Job(Generic[Result]):
    """The work of one request, and where its result is awaited.

    An error has the frames of whoever called, and they have the job: it lets go of what came as soon as that is told, or
    the body of every bad request would stay in memory until the next collection.
    """

    def __init__(self, work: Callable[[Stopwatch], Result], watch: Stopwatch, loop: asyncio.AbstractEventLoop) -> None:
        self._work: Callable[[Stopwatch], Result] | None = work
        self._watch = watch
        self._context = contextvars.copy_context()
        self._came: tuple[Result | None, BaseException | None] = (None, None)
        self.result: asyncio.Future[Result] = loop.create_future()
        self.began: float | None = None
        self.left = False

    def do(self) -> None:
        """Do it, in a thread."""
        self.began = time.monotonic()
        try:
            self._came = self._context.run(self._begin), None
        except MlaServeError as error:
            # Its frames would keep what was sent until the loop has time to answer, and nobody asks for its traceback.
            error.__context__ = None
            self._came = None, error.with_traceback(None)
        except StopIteration as error:  # no future takes one, and the request would wait in vain
            self._came = None, RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            self._came = None, error

    def tell(self) -> None:
        """Tell what came of it, on the loop, if anybody still waits."""
        (result, error), self._came = self._came, (None, None)
        if self._work is None or self.result.done():
            return
        if error is None:
            self.result.set_result(result)  # type: ignore[arg-type]
        else:
            self.result.set_exception(error)

    def drop(self) -> None:
        """Let go of the work and its result, and stop it where it has begun."""
        self._watch.stop()
        self._work = None
        del self.result

    async def leave(self, receive: Receive) -> None:
        """Give the result up as soon as the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self.result.cancel()

    def _begin(self) -> Result:
        self._watch.lap("queue")  # raises for what was dropped
        assert self._work is not None
        return self._work(self._watch)


class Bench:
    """Some threads, and who waits for them. Everything but the jobs happens on the event loop."""

    def __init__(self, threads: int, max_queue: int) -> None:
        """Start with nobody waiting; threads start with the first jobs."""
        self.max_queue = max_queue
        self._threads = threads
        self._crew: list[threading.Thread] = []
        self._unfinished: dict[_Job[Any], None] = {}
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        weakref.finalize(self, _send_home, self._queue, threads).atexit = False  # _see_off does it then, and waits
        _benches.add(self)

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return max(0, len(self._unfinished) - self._threads)

    def check(self) -> None:
        """Refuse a request for which there is no room.

        Raises: Overloaded.
        """
        if len(self._unfinished) >= self._threads + self.max_queue:
            meters().refused.labels("queue").inc()
            raise Overloaded(f"{self.waiting} requests wait already; send it again after the time in Retry-After")

    async def run(self, work: Callable[[Stopwatch], Result], watch: Stopwatch, receive: Receive) -> Result:
        """Do a job in a thread, when it is its turn, unless its client leaves before.

        Raises: Overloaded; ClientDisconnect; what the job raises.
        """
        self.check()
        loop = asyncio.get_running_loop()
        job = _Job(work, watch, loop)
        self._put(job, loop)
        leaving: list[asyncio.Task[None]] = []
        look = loop.call_later(LEAVING_S, lambda: leaving.append(loop.create_task(job.leave(receive))))
        try:
            return await job.result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not job.left or (task and task.cancelling()):
                raise  # by somebody else: the deadline or the end of the process
            meters().dropped.inc()
            raise ClientDisconnect from None
        finally:
            look.cancel()
            for task in leaving:
                task.cancel()
            job.drop()
            if job.began is None:
                del self._unfinished[job]

    def longest(self) -> float:
        """Return for how many seconds the job that runs longest has been running; 0 when none runs."""
        began = [job.began for job in self._unfinished if job.began is not None]
        return time.monotonic() - min(began) if began else 0.0

    def close(self) -> None:
        """Take no more jobs; those that run come to their end."""
        _send_home(self._queue, self._threads)  # not by way of the finalizer, which is dead at the end of the process

    def join(self, until: float) -> None:
        """Wait for the threads to end after `close`, to a point of the monotonic clock at most."""
        for thread in self._crew:
            thread.join(max(0.0, until - time.monotonic()))

    def _put(self, job: _Job[Any], loop: asyncio.AbstractEventLoop) -> None:
        if len(self._crew) < self._threads:  # first of all: where no thread can be started, nothing is kept
            name = f"answer_{len(self._crew)}"
            thread = threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True)
            thread.start()
            self._crew.append(thread)
        self._unfinished[job] = None
        self._queue.put(functools.partial(self._do, job, loop))

    def _do(self, job: _Job[Any], loop: asyncio.AbstractEventLoop) -> None:
        job.do()
        with contextlib.suppress(RuntimeError):  # a thread may outlive the loop at the end of the process
            loop.call_soon_threadsafe(self._finish, job)

    def _finish(self, job: _Job[Any]) -> None:
        self._unfinished.pop(job, None)  # one that was dropped as it began is out already
        job.tell()


def _work(queue: SimpleQueue[Call | None]) -> None:
    """Do what comes, in a thread."""
    while (call := queue.get()) is not None:
        call()
        del call


def _send_home(queue: SimpleQueue[Call | None], threads: int) -> None:
    for _ in range(threads):
        queue.put(None)


_benches: weakref.WeakSet[Bench] = weakref.WeakSet()


@atexit.register
def _see_off() -> None:
    """Let the threads end before the interpreter does: C++ in a graph that runs then would abort the process."""
    benches, until = list(_benches), time.monotonic() + GOODBYE_S
    for bench in benches:
        bench.close()
    for bench in benches:
        bench.join(until)
