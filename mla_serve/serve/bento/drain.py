"""The end of a worker: say that it is near, answer what was accepted, go; and never hang.

uvicorn stops accepting as soon as SIGTERM comes, while a load balancer still sends. Here /readyz turns false first and
every answer closes its connection; after `drain_s` uvicorn takes over and waits for the requests that are running.
A thread that does not come back, and a client that does not read, are waited for no longer than a request may take.
The listening socket belongs to BentoML's main process, which ends last. From `drain_s` on that process answers new
connections with 503; they would wait for nobody and be reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.serve.bento.connection import ENDING, LAST_REQUEST_S, Crowd, whole_answer
from mla_serve.serve.http.body_limits import LINGER_S
from mla_serve.serve.problems import PROBLEM_KINDS, Problem, Unavailable
from mla_serve.serve.request_id import id_of
from mla_serve.serve.settings import Settings

log = logging.getLogger("mla_serve")
GRACE_S = 5.0
LOOK_S = 1.0


class Drain:
    """Whether this worker is on its way out, and how it goes."""

    def __init__(self, settings: Settings, leave: Callable[[int], object] = os._exit) -> None:
        """Stay, for now."""
        self.on = False
        self.accepted = 0
        self.answered = 0
        self.crowd: Crowd | None = None  # once there may be connections
        self._settings = settings
        self._leave = leave
        self._next: Callable[[int, FrameType | None], object] | None = None

    def install(self) -> None:
        """Come before uvicorn when SIGTERM does. Call it in the main thread, with the loop running."""
        loop = asyncio.get_running_loop()
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            self._next = handler
            signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self.start))

    def start(self, code: int = 0) -> None:
        """Begin to go; the second time changes nothing."""
        if self.on:
            return
        self.on = True
        if self.crowd is not None:
            self.crowd.leave()
        log.info("draining: no longer ready, answering what was accepted")
        settings = self._settings
        last = threading.Timer(settings.drain_s + settings.request_timeout_s + GRACE_S, self._leave, [code])
        last.daemon = True
        last.start()
        asyncio.get_running_loop().call_later(settings.drain_s, self._hand_over)

    async def watch(self, longest: Callable[[], float]) -> None:
        """Go when a thread does not come back: the others are answered, and BentoML starts a new worker."""
        while longest() < self._settings.stuck_s:
            await asyncio.sleep(LOOK_S)
        log.critical("a thread has been busy for more than %g s; this worker is replaced", self._settings.stuck_s)
        self.start(1)

    def _hand_over(self) -> None:
        if self._next is not None:
            self._next(signal.SIGTERM, None)


class Drained:
    """Count what was accepted and answered, and close connections while draining."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        """Wrap an application."""
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start" and self.drain.on:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        self.drain.accepted += 1
        await self.app(scope, receive, counted_send)
        self.drain.answered += 1


def refuse_new_connections(listener: socket.socket, seconds: float) -> Callable[[], None]:
    """Answer 503, in a thread, to whoever connects after so many seconds; returns what ends that."""
    own = socket.socket(fileno=os.dup(listener.fileno()))
    loop, end = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_refuse(own, seconds, end))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed where it could not listen
            loop.call_soon_threadsafe(end.set)
        thread.join(2 * LINGER_S)

    return stop


async def _refuse(listener: socket.socket, seconds: float, end: asyncio.Event) -> None:
    running: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_refuse_one(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await end.wait()
    server = await asyncio.start_server(begin, sock=listener)
    await end.wait()
    server.close()
    if running:
        await asyncio.wait(running, timeout=LAST_REQUEST_S)


async def _refuse_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a head, answer, and let the client read that before the connection is closed."""
    with contextlib.closing(writer), contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(LINGER_S):
            await reader.readuntil(b"\r\n\r\n")
        kind = PROBLEM_KINDS[Unavailable]
        writer.write(whole_answer(Problem(kind.type, kind.title, kind.status, ENDING, request_id=id_of(()))))
        writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await reader.read(2**16):
                pass
