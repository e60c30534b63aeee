"""The threads that answer requests, and the bounded queue before them.

An event loop must not decode pictures or run graphs, so each request's work runs in one of a few threads. A request for
which there is no room is refused at once. The refusal is 503 and not 429: it speaks of the state of the worker, not of
what this client did.

The threads and their queue are made here, because a ThreadPoolExecutor takes 40 microseconds more of processor time for each
request: a twentieth of a small one.

Work for which nobody waits any more (the client left, or the deadline passed) is dropped: at once while it queues,
between two stages once it runs. Dropped work lets go of the request's body at once, wherever it stands in the queue.
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
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from mla_serve.errors import MlaServeError
from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import Overloaded
from mla_serve.serve.workers.stopwatch import Stopwatch

EXIT_S = 5.0  # at the end of the process, for the jobs that run to come to their next stage
Queue = SimpleQueue[Callable[[], None] | None]  # None ends a thread
LOOK_AFTER_S = 0.05  # when to look whether the client is still there: most requests are answered before
Result = TypeVar("Result")


class _Job(Generic[Result]):
    """The work of one request, which forgets what came in the request when it is dropped.

    The executor's queue keeps a job for a while after its client left, and the traceback of an error keeps the frames in
    which the job is a variable. Without `drop` they would keep the body of the request too; and an error that holds
    frames that hold the future that holds the error is a circle, which stays until the next garbage collection.
    """

    def __init__(self, work: Callable[[Stopwatch], Result], watch: Stopwatch, loop: asyncio.AbstractEventLoop) -> None:
        self._work: Callable[[Stopwatch], Result] | None = work
        self._watch = watch
        self._loop = loop
        self._context = contextvars.copy_context()  # has the id of the request, which log lines bear
        self._outcome: tuple[Result | None, BaseException | None] = (None, None)
        self.result: asyncio.Future[Result] = loop.create_future()
        self.began: float | None = None
        self.client_left = False

    def run(self) -> None:
        """Do the work, in a thread, and keep what came of it."""
        self.began = time.monotonic()
        try:
            self._outcome = self._context.run(self._run_work), None
        except MlaServeError as error:
            # Nobody reads its traceback, whose frames would keep the body until the event loop has answered.
            error.__context__ = None
            self._outcome = None, error.with_traceback(None)
        except StopIteration as error:  # no asyncio future takes it, so the client would wait for nothing
            self._outcome = None, RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            self._outcome = None, error

    def report(self) -> None:
        """Let the event loop hand the outcome to whoever waits for it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._deliver)

    def _run_work(self) -> Result:
        self._watch.lap("queue")  # raises if the job was dropped
        assert self._work is not None
        return self._work(self._watch)

    def _deliver(self) -> None:
        (result, error), self._outcome = self._outcome, (None, None)
        if self._work is None or self.result.done():
            return
        if error is None:
            self.result.set_result(result)  # type: ignore[arg-type]
        else:
            self.result.set_exception(error)

    def drop(self) -> None:
        """Forget the work and its result, and stop the work at its next stage if it runs."""
        self._watch.stop()
        self._work = None
        del self.result

    async def cancel_when_client_left(self, receive: Receive) -> None:
        """Give the result up as soon as the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        self.result.cancel()


class WorkerPool:
    """A fixed number of threads that answer requests in the order of their arrival."""

    def __init__(self, threads: int, max_queue: int) -> None:
        """Start without threads: each starts with the first request that needs it."""
        self.max_queue = max_queue
        self._size = threads
        self._threads: list[threading.Thread] = []
        self._queue: Queue = SimpleQueue()
        self._unfinished: dict[_Job[Any], None] = {}  # a thread takes its own job out, and that is atomic
        weakref.finalize(self, _end_threads, self._queue, threads).atexit = False  # there _join_threads waits for them
        _pools.add(self)

    @property
    def waiting(self) -> int:
        """How many requests wait for a thread."""
        return max(0, len(self._unfinished) - self._size)

    def check(self) -> None:
        """Refuse a request for which there is no room.

        Raises: Overloaded.
        """
        if len(self._unfinished) >= self._size + self.max_queue:
            meters().refused.labels("queue").inc()
            raise Overloaded(f"{self.waiting} requests wait already; send it again after the time in Retry-After")

    async def run(self, work: Callable[[Stopwatch], Result], watch: Stopwatch, receive: Receive) -> Result:
        """Do the work of one request in a thread, when it is its turn, unless its client leaves before.

        Raises: Overloaded; ClientDisconnect; what the work raises.
        """
        self.check()
        loop = asyncio.get_running_loop()
        job = _Job(work, watch, loop)
        self._submit(job)
        leaving: list[asyncio.Task[None]] = []
        look = loop.call_later(
            LOOK_AFTER_S, lambda: leaving.append(loop.create_task(job.cancel_when_client_left(receive)))
        )
        try:
            return await job.result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not job.client_left or (task and task.cancelling()):
                raise  # the deadline, or the end of the process
            meters().dropped.inc()
            raise ClientDisconnect from None
        finally:
            look.cancel()
            for each in leaving:
                each.cancel()
            self._drop(job)

    def longest(self) -> float:
        """Return for how many seconds the job that runs longest has been running; 0 when none runs."""
        began = [job.began for job in list(self._unfinished) if job.began is not None]
        return time.monotonic() - min(began) if began else 0.0

    def close(self) -> None:
        """Take no more jobs; those that run come to their end."""
        _end_threads(self._queue, self._size)

    def join(self, until: float) -> None:
        """Wait for the threads to end after `close`. Args: until, on the monotonic clock."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _submit(self, job: _Job[Any]) -> None:
        if len(self._threads) < self._size:  # first, because where no thread can be started, nothing may be kept
            thread = threading.Thread(
                target=_run_jobs, args=(self._queue,), name=f"answer_{len(self._threads)}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        self._unfinished[job] = None
        self._queue.put(functools.partial(self._run, job))

    def _run(self, job: _Job[Any]) -> None:
        job.run()
        self._unfinished.pop(job, None)  # before the report: its client may send the next request at once
        job.report()

    def _drop(self, job: _Job[Any]) -> None:
        """Let a job go. One that never ran gives its place back; a thread keeps the place until it comes back."""
        job.drop()
        if job.began is None:
            self._unfinished.pop(job, None)


def _run_jobs(queue: Queue) -> None:
    """Run jobs in a thread. It refers to no pool between two jobs, so that the pool of an old model is freed."""
    while (run := queue.get()) is not None:
        run()
        del run


def _end_threads(queue: Queue, threads: int) -> None:
    for _ in range(threads):
        queue.put(None)


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


@atexit.register
def _join_threads() -> None:
    """Wait for what runs before the interpreter ends, but not for a stuck thread.

    A graph that still runs then would abort the process (C++: "terminate called without an active exception").
    """
    pools, until = list(_pools), time.monotonic() + EXIT_S
    for pool in pools:
        pool.close()
    for pool in pools:
        pool.join(until)
