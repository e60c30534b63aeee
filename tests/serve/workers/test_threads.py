"""The worker pool: a bounded queue in the order of arrival, which forgets requests whose client has left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from mla_serve.serve.problems import DeadlineExceeded, Overloaded, TooCostly, problem_response
from mla_serve.serve.workers.stopwatch import Stopwatch
from mla_serve.serve.workers.threads import WorkerPool


async def stay() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


class Gate:
    """A job that holds its thread until it is opened."""

    def __init__(self) -> None:
        self.begun, self.event = threading.Event(), threading.Event()

    def __call__(self, watch: Stopwatch) -> str:
        self.begun.set()
        assert self.event.wait(30)
        return "held"


def start(pool: WorkerPool, job: Callable[[Stopwatch], Any], receive: Any = stay) -> asyncio.Task[Any]:
    return asyncio.ensure_future(pool.run(job, Stopwatch(), receive))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_does_not_fit_into_the_queue_is_refused() -> None:
    async def fill() -> None:
        pool, gate = WorkerPool(1, max_queue=2), Gate()
        running = [start(pool, gate) for _ in range(3)]
        await settle()
        assert pool.waiting == 2
        with pytest.raises(Overloaded, match="2 requests wait"):
            await pool.run(gate, Stopwatch(), stay)
        gate.event.set()
        assert await asyncio.gather(*running) == ["held"] * 3
        assert pool.waiting == 0
        pool.check()

    asyncio.run(fill())


def test_without_a_queue_an_idle_thread_still_works() -> None:
    async def ask() -> str:
        return await WorkerPool(1, max_queue=0).run(lambda _: "done", Stopwatch(), stay)

    assert asyncio.run(ask()) == "done"


def test_a_refusal_has_a_retry_after() -> None:
    reply = problem_response(Overloaded("full"))
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"


def test_a_client_that_leaves_frees_its_place_and_its_memory() -> None:
    class Body:
        """What a request holds in memory."""

    async def leave() -> None:
        pool, gate, ran = WorkerPool(1, max_queue=1), Gate(), []
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        def job(watch: Stopwatch, body: Body) -> None:
            ran.append(body)

        holder = start(pool, gate)
        await settle()
        body = Body()
        alive = weakref.ref(body)
        leaver = start(pool, lambda watch, body=body: job(watch, body), receive)
        del body
        await settle()
        assert pool.waiting == 1
        gone.set()
        await asyncio.wait([leaver])
        assert type(leaver.exception()) is ClientDisconnect
        assert pool.waiting == 0
        del leaver  # its exception's traceback has the frames
        gc.collect()
        assert alive() is None
        gate.event.set()
        assert await holder == "held"
        assert not ran

    asyncio.run(leave())


def test_a_client_that_leaves_stops_what_runs_between_two_stages() -> None:
    async def leave() -> bool:
        pool, inside, go_on, stopped = (
            WorkerPool(1, max_queue=1),
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )

        def job(watch: Stopwatch) -> None:
            inside.set()
            assert go_on.wait(30)
            try:
                watch.lap("encode")
            except DeadlineExceeded:
                stopped.set()
                raise

        async def receive() -> Message:
            await asyncio.to_thread(inside.wait, 30)
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnect):
            await pool.run(job, Stopwatch(), receive)
        go_on.set()
        return await asyncio.to_thread(stopped.wait, 30)

    assert asyncio.run(leave())


def test_the_deadline_drops_what_queues() -> None:
    async def be_late() -> None:
        pool, gate, ran = WorkerPool(1, max_queue=1), Gate(), []
        holder = start(pool, gate)
        await settle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.run(ran.append, Stopwatch(), stay)
        assert pool.waiting == 0
        gate.event.set()
        assert await holder == "held"
        assert not ran

    asyncio.run(be_late())


def test_a_thread_that_does_not_come_back_keeps_its_place() -> None:
    """Otherwise late requests would pile up behind it."""

    async def be_stuck() -> None:
        pool, gate = WorkerPool(1, max_queue=0), Gate()
        job = start(pool, gate)
        assert await asyncio.to_thread(gate.begun.wait, 30)  # a job that no thread has begun would be dropped
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await job
        with pytest.raises(Overloaded):
            pool.check()
        assert pool.longest() > 0
        gate.event.set()
        while pool.longest():
            await asyncio.sleep(0.001)
        pool.check()

    asyncio.run(be_stuck())


def test_a_bug_in_a_job_is_not_swallowed() -> None:
    async def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            await WorkerPool(1, 0).run(lambda _: 1 // 0, Stopwatch(), stay)

    asyncio.run(fail())


def test_a_job_that_raises_what_no_future_takes_is_answered_all_the_same() -> None:
    async def fail() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            async with asyncio.timeout(10):
                await WorkerPool(1, 0).run(lambda _: next(iter(())), Stopwatch(), stay)

    asyncio.run(fail())


def test_a_bad_request_frees_its_memory_without_a_collection() -> None:
    """gc would come by late: a worker's first objects are frozen, and a body is one object, however large."""

    class Body:
        """What a request holds in memory."""

    def refuse(watch: Stopwatch, body: Body) -> None:
        raise ValueError(f"{watch} cannot use {body}")

    async def ask(pool: WorkerPool, body: Body) -> None:
        with contextlib.suppress(ValueError):
            await pool.run(functools.partial(refuse, body=body), Stopwatch(), stay)

    async def be_refused() -> None:
        pool, body = WorkerPool(1, 0), Body()
        alive = weakref.ref(body)
        await ask(pool, body)
        del body
        await settle()
        assert alive() is None

    gc.disable()
    try:
        asyncio.run(be_refused())
    finally:
        gc.enable()


def test_a_thread_that_cannot_be_started_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as where the number of processes is bounded."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> None:
        pool = WorkerPool(1, 0)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                await pool.run(lambda _: "done", Stopwatch(), stay)
        assert await pool.run(lambda _: "done", Stopwatch(), stay) == "done"

    asyncio.run(ask())


def test_clients_that_leave_at_any_moment_cost_no_place_and_no_thread() -> None:
    async def leave_at_any_time() -> None:
        pool = WorkerPool(2, max_queue=1000)
        for turn in range(300):
            tasks = [start(pool, lambda _: time.sleep(0.0002)) for _ in range(4)]
            await asyncio.sleep(turn % 7 * 0.0001)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        async with asyncio.timeout(10):
            while pool.longest():
                await asyncio.sleep(0.001)
            pool.max_queue = 0
            assert await asyncio.gather(*(start(pool, lambda _: "done") for _ in range(2))) == ["done"] * 2
        assert pool.waiting == 0

    asyncio.run(leave_at_any_time())


LEAVER = """
import asyncio, time
from mla_serve.serve.workers.stopwatch import Stopwatch
from mla_serve.serve.workers.threads import WorkerPool

def job(watch):
    time.sleep(0.5)
    print("came to its next stage", flush=True)
    watch.lap("encode")
    raise AssertionError("it was dropped")

async def main():
    receive = asyncio.Event().wait
    idle, busy = WorkerPool(1, 1), WorkerPool(1, 1)
    await idle.run(lambda _: None, Stopwatch(), receive)
    task = asyncio.ensure_future(busy.run(job, Stopwatch(), receive))
    await asyncio.sleep(0.1)
    task.cancel()

asyncio.run(main())
"""


def test_the_process_ends_after_what_runs_and_not_in_the_midst_of_it() -> None:
    """A graph's C++ would abort it: `terminate called without an active exception`."""
    ended = subprocess.run([sys.executable, "-c", LEAVER], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "came to its next stage\n", "")


STUCK = """
import asyncio, time
from mla_serve.serve.workers.stopwatch import Stopwatch
from mla_serve.serve.workers import threads
from mla_serve.serve.workers.threads import WorkerPool

async def main():
    task = asyncio.ensure_future(WorkerPool(1, 1).run(lambda _: time.sleep(1000), Stopwatch(), asyncio.Event().wait))
    await asyncio.sleep(0.1)
    task.cancel()

asyncio.run(main())
print("answered", flush=True)
threads.EXIT_S = 0.1
"""


def test_a_stuck_thread_does_not_keep_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "answered\n", "")


def test_decoding_may_cost_so_much_and_no_more() -> None:
    watch = Stopwatch(decoding_s=1e-9)
    with watch.decoding("image"):
        sum(range(1000))
    with pytest.raises(TooCostly, match=r"^audio: "), watch.decoding("audio"):
        raise AssertionError("it may not begin")
