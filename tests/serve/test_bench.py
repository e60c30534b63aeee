"""The queue before the threads: it is bounded, in turn, and forgets whom nobody waits for."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from mla_serve.serve.bench import Bench, Stopwatch
from mla_serve.serve.problems import DeadlineExceeded, Overloaded, TooCostly, problem_response


async def stay() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


class Gate:
    """A job that holds its thread until it is opened."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, watch: Stopwatch) -> str:
        assert self.event.wait(30)
        return "held"


def start(bench: Bench, job: Callable[[Stopwatch], Any], receive: Any = stay) -> asyncio.Task[Any]:
    return asyncio.ensure_future(bench.run(job, Stopwatch(60.0), receive))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_does_not_fit_into_the_queue_is_refused() -> None:
    async def fill() -> None:
        bench, gate = Bench(1, max_queue=2), Gate()
        running = [start(bench, gate) for _ in range(3)]
        await settle()
        assert bench.waiting == 2
        with pytest.raises(Overloaded, match="2 requests wait"):
            await bench.run(gate, Stopwatch(60.0), stay)
        gate.event.set()
        assert await asyncio.gather(*running) == ["held"] * 3
        assert bench.waiting == 0
        bench.check()

    asyncio.run(fill())


def test_without_a_queue_an_idle_thread_still_works() -> None:
    async def ask() -> str:
        return await Bench(1, max_queue=0).run(lambda _: "done", Stopwatch(60.0), stay)

    assert asyncio.run(ask()) == "done"


def test_a_refusal_says_when_to_come_back() -> None:
    reply = problem_response(Overloaded("full"))
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"


def test_a_client_that_leaves_frees_its_place_and_its_memory() -> None:
    class Body:
        """What a request holds in memory."""

    async def leave() -> None:
        bench, gate, ran = Bench(1, max_queue=1), Gate(), []
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        def job(watch: Stopwatch, body: Body) -> None:
            ran.append(body)

        holder = start(bench, gate)
        await settle()
        body = Body()
        alive = weakref.ref(body)
        leaver = start(bench, lambda watch, body=body: job(watch, body), receive)
        del body
        await settle()
        assert bench.waiting == 1
        gone.set()
        await asyncio.wait([leaver])
        assert type(leaver.exception()) is ClientDisconnect
        assert bench.waiting == 0
        del leaver  # its exception's traceback has the frames
        gc.collect()
        assert alive() is None
        gate.event.set()
        assert await holder == "held"
        assert not ran

    asyncio.run(leave())


def test_a_client_that_leaves_stops_what_runs_between_two_stages() -> None:
    async def leave() -> bool:
        bench, inside, go_on, stopped = Bench(1, max_queue=1), threading.Event(), threading.Event(), threading.Event()

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
            await bench.run(job, Stopwatch(60.0), receive)
        go_on.set()
        return await asyncio.to_thread(stopped.wait, 30)

    assert asyncio.run(leave())


def test_the_deadline_drops_what_queues() -> None:
    async def be_late() -> None:
        bench, gate, ran = Bench(1, max_queue=1), Gate(), []
        holder = start(bench, gate)
        await settle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bench.run(ran.append, Stopwatch(60.0), stay)
        assert bench.waiting == 0
        gate.event.set()
        assert await holder == "held"
        assert not ran

    asyncio.run(be_late())


def test_a_thread_that_does_not_come_back_keeps_its_place() -> None:
    """Otherwise late requests would pile up behind it."""

    async def be_stuck() -> None:
        bench, gate = Bench(1, max_queue=0), Gate()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bench.run(gate, Stopwatch(60.0), stay)
        with pytest.raises(Overloaded):
            bench.check()
        assert bench.longest() > 0
        gate.event.set()
        while bench.longest():
            await asyncio.sleep(0.001)
        bench.check()

    asyncio.run(be_stuck())


def test_a_bug_in_a_job_is_not_swallowed() -> None:
    async def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            await Bench(1, 0).run(lambda _: 1 // 0, Stopwatch(60.0), stay)

    asyncio.run(fail())


def test_decoding_may_cost_so_much_and_no_more() -> None:
    watch = Stopwatch(60.0, decoding_s=1e-9)
    with watch.decoding("image"):
        sum(range(1000))
    with pytest.raises(TooCostly, match=r"^audio: "), watch.decoding("audio"):
        raise AssertionError("it may not begin")
