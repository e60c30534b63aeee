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

from mla_serve.serve.bento import dealing
from mla_serve.serve.bento.dealing import SLOT, Dealer, Table


class Crowd(asyncio.Protocol):
    """A worker's connections: each that is made counts."""

    def __init__(self, table: Table, count: int = 0) -> None:
        self.count = count
        self.table = table
        self.transports: list[asyncio.BaseTransport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.count += 1
        self.transports.append(transport)


class Fixed(Table):
    """A table in which the other worker always has the same number."""

    def __init__(self, other: int | None, *, left: bool = False) -> None:
        self.other = other
        self.left = left

    def tell(self, count: int) -> None:
        pass

    leave = lambda self: None  # noqa: E731

    def least(self) -> int | None:
        return self.other


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield sock


@contextlib.contextmanager
def dealt(listener: socket.socket, connections: int, *crowds: Crowd) -> Iterator[list[Dealer]]:
    """Let a dealer for each crowd take from the socket, and connect so many times."""
    with contextlib.ExitStack() as stack:
        shared = [stack.enter_context(listener.dup()) for _ in crowds]
        dealers = [
            Dealer(sock, lambda crowd=crowd: crowd, crowd, crowd.table)
            for sock, crowd in zip(shared, crowds, strict=True)
        ]
        for _ in range(connections):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        yield dealers
        for dealer in dealers:
            dealer.close()
        for crowd in crowds:
            for transport in crowd.transports:
                transport.close()


async def until(reached: int, *crowds: Crowd) -> None:
    async with asyncio.timeout(30):
        while sum(crowd.count for crowd in crowds) < reached:
            await asyncio.sleep(0.001)


def test_whoever_has_more_leaves_the_next_to_the_others(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dealing, "WAIT_S", 5.0)

    async def deal() -> tuple[int, int]:
        rich, poor = Crowd(Fixed(0), 3), Crowd(Fixed(3), 0)
        with dealt(listener, 3, rich, poor):
            await until(6, rich, poor)
        return rich.count, poor.count

    assert asyncio.run(deal()) == (3, 3)


def test_a_worker_that_is_on_its_way_out_leaves_connections_to_the_others(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes each after its answer, and would always be the one that has the fewest."""
    monkeypatch.setattr(dealing, "WAIT_S", 5.0)

    async def deal() -> tuple[int, int]:
        leaving, rich = Crowd(Fixed(3, left=True), 0), Crowd(Fixed(None), 3)
        with dealt(listener, 3, leaving, rich):
            await until(6, leaving, rich)
        return leaving.count, rich.count

    assert asyncio.run(deal()) == (0, 6)


def test_a_connection_that_cannot_be_made_is_closed_and_the_next_is_taken(listener: socket.socket) -> None:
    async def deal() -> tuple[list[object], bytes]:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        crowd = Crowd(Fixed(None))
        made = iter([None, crowd])
        dealer = Dealer(listener, lambda: next(made) or fail(ZeroDivisionError()), crowd, crowd.table)
        with socket.create_connection(listener.getsockname()) as first:
            while not told:
                await asyncio.sleep(0.001)
            first.settimeout(10)
            ended = first.recv(1)
            with socket.create_connection(listener.getsockname()):
                await until(1, crowd)
        dealer.close()
        crowd.transports[0].close()
        return told, ended

    told, ended = asyncio.run(deal())
    assert [type(error) for error in told] == [ZeroDivisionError]
    assert ended == b""


def test_what_no_other_takes_is_taken_all_the_same(listener: socket.socket) -> None:
    async def deal() -> None:
        crowd = Crowd(Fixed(0), 3)
        with dealt(listener, 2, crowd):
            await until(5, crowd)

    asyncio.run(deal())


def test_a_closed_dealer_takes_nothing(listener: socket.socket) -> None:
    async def deal() -> int:
        crowd = Crowd(Fixed(None))
        with dealt(listener, 1, crowd) as dealers:
            dealers[0].close()
            await dealers[0].wait_closed()
            await asyncio.sleep(0.05)
        return crowd.count

    assert asyncio.run(deal()) == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_is_made_as_the_dealer_closes_is_kept_to_its_end(
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

    async def deal() -> None:
        def factory() -> Protocol:
            dealer.close()
            return Protocol()

        dealer = Dealer(listener, factory, Crowd(Fixed(None)), Fixed(None))
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"hello")
            async with asyncio.timeout(10):
                while "hello" not in happened:
                    await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            while "lost" not in happened:
                await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(deal())
    assert happened == ["made", "hello", "lost"]


def test_no_room_for_a_connection_is_no_end(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as no file descriptor left."""
    monkeypatch.setattr(dealing, "AGAIN_S", 0.01)
    failures = [OSError(24, "Too many open files")] * 2
    accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", lambda sock: fail(failures.pop()) if failures else accept(sock))

    async def deal() -> None:
        crowd = Crowd(Fixed(None))
        with dealt(listener, 1, crowd):
            await until(1, crowd)

    asyncio.run(deal())
    assert not failures


def fail(error: Exception) -> NoReturn:
    raise error


def test_the_table_knows_the_living_others(tmp_path: Path) -> None:
    table = Table(tmp_path / "connections", 1)
    assert table.least() is None
    table.tell(4)
    assert table.least() is None, "its own number"
    gone = subprocess.Popen(["true"])
    gone.wait()
    with (tmp_path / "connections").open("r+b") as file:
        for slot, (pid, count) in {2: (os.getppid(), 7), 3: (gone.pid, 0)}.items():
            file.seek(slot * SLOT.size)
            file.write(SLOT.pack(pid, count))
    assert table.least() == 7, "one that died does not count"
    other = Table(tmp_path / "connections", 2)
    other.leave()
    other.tell(0)
    assert table.least() is None, "one that has left stays away, whatever happens to its connections"


def test_a_worker_that_cannot_write_is_alone(tmp_path: Path) -> None:
    table = Table(tmp_path / "missing" / "connections", 0)
    table.tell(1)
    assert table.least() is None
