"""Connections dealt evenly over the workers, which share one listening socket.

The kernel wakes every worker that has time, and the quickest takes what waits: of 8 connections one worker may get 6, or all
of them while something else keeps the other's core busy, and they stay there. So a worker that has more than another
waits a moment before it takes one more. The workers tell each other by a small file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import uvicorn.config
from uvicorn.loops.auto import auto_loop_factory

WAIT_S = 0.005  # for each connection that it has more: a busy interpreter changes threads every 5 ms
MOST_WAITS = 4
AGAIN_S = 1.0  # after a failure, such as no descriptor left
SLOT = struct.Struct("=ii")  # process, connections
SLOTS = 1024
Factory = Callable[[], asyncio.BaseProtocol]


class Counted(Protocol):
    """Whoever knows how many connections this worker has."""

    count: int


class Table:
    """How many connections each worker has, in a file that all of them write to; a worker that cannot is alone."""

    def __init__(self, path: Path, slot: int) -> None:
        """Take a slot: another one for each worker that lives at the same time."""
        self._slot = slot % SLOTS
        self._file = -1
        self.left = False
        with contextlib.suppress(OSError):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def tell(self, count: int) -> None:
        """Say how many connections this worker has, unless it has left."""
        if not self.left:
            self._write(SLOT.pack(os.getpid(), count))

    def leave(self) -> None:
        """Say that this worker wants no more: nobody waits for it to have as many, and it waits for all others."""
        self.left = True
        self._write(SLOT.pack(0, 0))

    def least(self) -> int | None:
        """Return the smallest number that another living worker has; None without another."""
        with contextlib.suppress(OSError):
            slots = SLOT.iter_unpack(os.pread(self._file, SLOT.size * SLOTS, 0))
            others = sorted((count, pid) for pid, count in slots if pid and pid != os.getpid())
            return next((count for count, pid in others if Path(f"/proc/{pid}").exists()), None)
        return None

    def _write(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self._file, content, SLOT.size * self._slot)


class Dealer:
    """Takes connections from a shared socket, later than the others while it has more than they."""

    def __init__(self, sock: socket.socket, factory: Factory, crowd: Counted, table: Table) -> None:
        """Listen. Call it with the loop running."""
        self.sockets = (sock,)
        self._sock = sock
        self._factory = factory
        self._crowd = crowd
        self._table = table
        self._loop = asyncio.get_running_loop()
        self._taking: asyncio.Task[None] | None = None
        self._closed = False
        sock.setblocking(False)
        table.tell(crowd.count)
        self._listen()

    def close(self) -> None:
        """Take no more. A connection that is being made now is made: uvicorn has heard of it, and waits for its end."""
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._table.leave()

    async def wait_closed(self) -> None:
        """Return: there is nothing to wait for."""

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._come)

    def _come(self) -> None:
        self._loop.remove_reader(self._sock)
        self._taking = self._loop.create_task(self._take())

    async def _take(self) -> None:
        if waits := self._waits():
            await asyncio.sleep(WAIT_S * waits)
        if not self._closed:
            await self._accept()
        if not self._closed:
            self._listen()

    async def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):
            pass  # another worker has taken it, or the client has gone
        except OSError:
            await asyncio.sleep(AGAIN_S)
        else:
            await self._begin(connection)

    def _waits(self) -> int:
        least = self._table.least()
        if least is None:
            return 0
        return MOST_WAITS if self._table.left else max(0, min(self._crowd.count - least, MOST_WAITS))

    async def _begin(self, connection: socket.socket) -> None:
        """Whatever goes wrong with one connection, the worker takes the next."""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._factory, connection)
        except Exception as error:
            connection.close()
            if not isinstance(error, OSError):  # else the client has gone
                self._loop.call_exception_handler({"message": "a connection could not be taken", "exception": error})


def install(crowd: Counted, table: Table) -> None:
    """Make uvicorn's loops take connections from sockets that they are given in this way."""

    def factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
        return lambda: _dealing(auto_loop_factory(use_subprocess)(), crowd, table)

    uvicorn.config.LOOP_FACTORIES["auto"] = factory  # type: ignore[assignment]


def _dealing(loop: asyncio.AbstractEventLoop, crowd: Counted, table: Table) -> asyncio.AbstractEventLoop:
    """Let a loop's `create_server` make a Dealer for a socket without TLS."""
    usual: Any = loop.create_server

    async def create_server(factory: Factory, *args: Any, **named: Any) -> Any:
        if named.get("sock") is None or named.get("ssl") is not None:
            return await usual(factory, *args, **named)
        named["sock"].listen(named.get("backlog", 100))
        return Dealer(named["sock"], factory, crowd, table)

    loop.create_server = create_server  # type: ignore[assignment, method-assign]
    return loop
