"""Connections of one socket go to the worker that has the fewest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import uvloop

from mla_serve.serve.bento import accept_evenly
from mla_serve.serve.bento.accept_evenly import SLOT, ConnectionCounts, FairAcceptor


class Worker(asyncio.Protocol):
    """A worker that counts its connections."""

    def __init__(self, counts: ConnectionCounts, count: int = 0) -> None:
        self.counts = counts
        counts.set(count)
        self.transports: list[asyncio.BaseTransport] = []

    @property
    def count(self) -> int:
        return self.counts.own

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.counts.set(self.count + 1)
        self.transports.append(transport)


class Fixed(ConnectionCounts):
    """Counts in which the other worker always has the same number."""

    def __init__(self, other: int | None, *, left: bool = False) -> None:
        self.other = other
        self.own = 0
        self.left = left

    def set(self, count: int) -> None:
        self.own = count

    leave = lambda self: None  # noqa: E731

    def least(self) -> int | None:
        return self.other


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


@contextlib.contextmanager
def accepting(listener: socket.socket, connections: int, *workers: Worker) -> Iterator[list[FairAcceptor]]:
    """Let a acceptor for each worker take from the socket, and connect so many times."""
    with contextlib.ExitStack() as stack:
        shared = [stack.enter_context(listener.dup()) for _ in workers]
        acceptors = [
            FairAcceptor(sock, lambda worker=worker: worker, worker.counts)
            for sock, worker in zip(shared, workers, strict=True)
        ]
        for _ in range(connections):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        yield acceptors
        for acceptor in acceptors:
            acceptor.close()
        for worker in workers:
            for transport in worker.transports:
                transport.close()


async def until(reached: int, *workers: Worker) -> None:
    async with asyncio.timeout(30):
        while sum(worker.count for worker in workers) < reached:
            await asyncio.sleep(0.001)


def test_whoever_has_more_leaves_the_next_to_the_others(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept_evenly, "WAIT_S", 5.0)

    async def accept() -> tuple[int, int]:
        rich, poor = Worker(Fixed(0), 3), Worker(Fixed(3), 0)
        with accepting(listener, 3, rich, poor):
            await until(6, rich, poor)
        return rich.count, poor.count

    assert asyncio.run(accept()) == (3, 3)


def test_a_worker_that_is_on_its_way_out_leaves_connections_to_the_others(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes each after its answer, and would always be the one that has the fewest."""
    monkeypatch.setattr(accept_evenly, "WAIT_S", 5.0)

    async def accept() -> tuple[int, int]:
        leaving, rich = Worker(Fixed(3, left=True), 0), Worker(Fixed(None), 3)
        with accepting(listener, 3, leaving, rich):
            await until(6, leaving, rich)
        return leaving.count, rich.count

    assert asyncio.run(accept()) == (0, 6)


def test_a_connection_that_cannot_be_made_is_closed_and_the_next_is_taken(listener: socket.socket) -> None:
    async def accept() -> tuple[list[object], bytes]:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        worker = Worker(Fixed(None))
        made = iter([None, worker])
        acceptor = FairAcceptor(listener, lambda: next(made) or fail(ZeroDivisionError()), worker.counts)
        with socket.create_connection(listener.getsockname()) as first:
            while not told:
                await asyncio.sleep(0.001)
            first.settimeout(10)
            ended = first.recv(1)
            with socket.create_connection(listener.getsockname()):
                await until(1, worker)
        acceptor.close()
        worker.transports[0].close()
        return told, ended

    told, ended = asyncio.run(accept())
    assert [type(error) for error in told] == [ZeroDivisionError]
    assert ended == b""


def test_what_no_other_takes_is_taken_all_the_same(listener: socket.socket) -> None:
    async def accept() -> None:
        worker = Worker(Fixed(0), 3)
        with accepting(listener, 2, worker):
            await until(5, worker)

    asyncio.run(accept())


def test_a_closed_acceptor_takes_nothing(listener: socket.socket) -> None:
    async def accept() -> int:
        worker = Worker(Fixed(None))
        with accepting(listener, 1, worker) as acceptors:
            acceptors[0].close()
            await acceptors[0].wait_closed()
            await asyncio.sleep(0.05)
        return worker.count

    assert asyncio.run(accept()) == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_is_made_as_the_acceptor_closes_is_kept_to_its_end(
    listener: socket.socket, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Cut off in the midst of it, uvicorn would know of it and never hear of its end, and the worker would not go."""
    happened: list[str] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            happened.append("made")

        def data_received(self, data: bytes) -> None:
            happened.append(data.decode())

        def connection_lost(self, exc: Exception | None) -> None:
            happened.append("lost")

    async def accept() -> None:
        def factory() -> Protocol:
            acceptor.close()
            return Protocol()

        acceptor = FairAcceptor(listener, factory, Fixed(None))
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"hello")
            async with asyncio.timeout(10):
                while "hello" not in happened:
                    await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            while "lost" not in happened:
                await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(accept())
    assert happened == ["made", "hello", "lost"]


def test_no_room_for_a_connection_is_no_end(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as no file descriptor left."""
    monkeypatch.setattr(accept_evenly, "RETRY_S", 0.01)
    failures = [OSError(24, "Too many open files")] * 2
    usual = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", lambda sock: fail(failures.pop()) if failures else usual(sock))

    async def accept() -> None:
        worker = Worker(Fixed(None))
        with accepting(listener, 1, worker):
            await until(1, worker)

    asyncio.run(accept())
    assert not failures


def fail(error: Exception) -> NoReturn:
    raise error


def test_the_counts_knows_the_living_others(tmp_path: Path) -> None:
    counts = ConnectionCounts(tmp_path / "connections", 1)
    assert counts.least() is None
    counts.set(4)
    assert counts.least() is None, "its own number"
    gone = subprocess.Popen(["true"])
    gone.wait()
    with (tmp_path / "connections").open("r+b") as file:
        for slot, (pid, count) in {2: (os.getppid(), 7), 3: (gone.pid, 0)}.items():
            file.seek(slot * SLOT.size)
            file.write(SLOT.pack(pid, count))
    assert counts.least() == 7, "one that died does not count"
    other = ConnectionCounts(tmp_path / "connections", 2)
    other.leave()
    other.set(0)
    assert counts.least() is None, "one that has left stays away, whatever happens to its connections"


def test_a_worker_that_cannot_write_is_alone(tmp_path: Path) -> None:
    counts = ConnectionCounts(tmp_path / "missing" / "connections", 0)
    counts.set(1)
    assert counts.least() is None
