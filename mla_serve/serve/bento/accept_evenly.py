"""Spread connections evenly over the workers, which share one listening socket.

Changes: `create_server` of the event loop that uvicorn runs on. The loop itself is a public option of uvicorn.Config.
Why: the kernel wakes every worker that has time, and the quickest accepts all connections that wait. They stay there while
they are kept alive. Of eight connections made at once to two workers, one worker got all eight in half of eighty tries, and
at most five in a sixth of them; with this, four each in nine tries of ten.
How: a worker that has more connections than another waits a moment before it accepts one more. Workers exchange their
numbers in a small file.
Public way that is missing: uvicorn and BentoML accept as the event loop does; there is no option for it.
Seen to work with uvicorn 0.54, uvloop 0.23.
Check: uvicorn has made this loop, before the worker's service starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mla_serve.serve.bento import patches

WAIT_S = 0.005  # for each connection more than another worker has: a busy interpreter changes threads every 5 ms
MOST_WAITS = 4
RETRY_S = 1.0  # after a failure, such as no descriptor left
SLOT = struct.Struct("=ii")  # process, connections
SLOTS = 1024
Factory = Callable[[], asyncio.BaseProtocol]
counts: ConnectionCounts | None = None  # those of this worker, set before the loop is made


class ConnectionCounts:
    """The number of connections of each worker, in a file that all of them write to.

    A worker that cannot write to the file accepts as if it were the only one.
    """

    def __init__(self, path: Path, slot: int) -> None:
        """Use a slot of the file, another one for each worker that lives at the same time."""
        self.own = 0
        self._slot = slot % SLOTS
        self._file = -1
        self.left = False
        with contextlib.suppress(OSError):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def set(self, count: int) -> None:
        """Set the number of this worker's connections, unless it has left."""
        self.own = count
        if not self.left:
            self._write(SLOT.pack(os.getpid(), count))

    def leave(self) -> None:
        """Withdraw this worker, which is ending: no other waits for it, and it waits for every other."""
        self.left = True
        self._write(SLOT.pack(0, 0))

    def least(self) -> int | None:
        """Return the smallest number of connections of another living worker; None if there is no other."""
        with contextlib.suppress(OSError):
            slots = SLOT.iter_unpack(os.pread(self._file, SLOT.size * SLOTS, 0))
            others = sorted((count, pid) for pid, count in slots if pid and pid != os.getpid())
            return next((count for count, pid in others if Path(f"/proc/{pid}").exists()), None)
        return None

    def _write(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self._file, content, SLOT.size * self._slot)


class FairAcceptor:
    """A server that accepts from a shared socket, later than other workers while it has more connections than they."""

    def __init__(self, sock: socket.socket, factory: Factory, counts: ConnectionCounts) -> None:
        """Start to accept. Call it with the loop running."""
        self.sockets = (sock,)
        self._sock = sock
        self._factory = factory
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._accepting: asyncio.Task[None] | None = None
        self._closed = False
        sock.setblocking(False)
        counts.set(counts.own)
        self._listen()

    def close(self) -> None:
        """Accept no more. A connection that is being made now is finished: uvicorn knows of it, and waits for its end."""
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._counts.leave()

    async def wait_closed(self) -> None:
        """Return: there is nothing to wait for."""

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._sock)
        self._accepting = self._loop.create_task(self._accept_one())

    async def _accept_one(self) -> None:
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
            pass  # another worker has accepted it, or the client has gone
        except OSError:
            await asyncio.sleep(RETRY_S)
        else:
            await self._begin(connection)

    def _waits(self) -> int:
        least = self._counts.least()
        if least is None:
            return 0
        return MOST_WAITS if self._counts.left else max(0, min(self._counts.own - least, MOST_WAITS))

    async def _begin(self, connection: socket.socket) -> None:
        """Hand a connection to uvicorn. Whatever goes wrong with it, the worker accepts the next."""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._factory, connection)
        except Exception as error:
            connection.close()
            if not isinstance(error, OSError):  # else the client has gone
                self._loop.call_exception_handler(
                    {"message": "a connection could not be handed to uvicorn", "exception": error}
                )


def leave() -> None:
    """Let the other workers accept from now on; connections reach this one only when no other accepts them."""
    if counts is not None:
        counts.leave()


def new_loop() -> asyncio.AbstractEventLoop:
    """Make uvicorn's usual event loop, with a FairAcceptor for a socket without TLS that it is given."""
    loop = asyncio.new_event_loop()
    with contextlib.suppress(ImportError):
        import uvloop

        loop.close()
        loop = uvloop.new_event_loop()
    usual: Any = loop.create_server

    async def create_server(factory: Factory, *args: Any, **named: Any) -> Any:
        if counts is None or named.get("sock") is None or named.get("ssl") is not None:
            return await usual(factory, *args, **named)
        named["sock"].listen(named.get("backlog", 100))
        return FairAcceptor(named["sock"], factory, counts)

    patches.report("accept_evenly", active=True)
    loop.create_server = create_server  # type: ignore[assignment, method-assign]
    return loop
