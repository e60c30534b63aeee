"""The end of a worker, without losing a request that it has accepted.

uvicorn stops accepting as soon as SIGTERM arrives, while a load balancer still sends requests. So there are two steps. First
/readyz answers 503 and every answer closes its connection, so that balancers and clients go elsewhere. After `drain_s`
uvicorn gets the signal, stops accepting and waits for the requests that are running. A timer ends the process when a thread
does not come back or a client does not read, after the longest time that a request may take.

The listening socket belongs to BentoML's main process (arbiter.py), which ends last. From `drain_s` on that process answers
new connections with 503; otherwise they would wait in the socket's queue and be reset at the end.
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

from mla_serve.serve.bento.raw_response import problem_bytes
from mla_serve.serve.http.body_limits import LINGER_S
from mla_serve.serve.problems import PROBLEM_KINDS, Problem, Unavailable
from mla_serve.serve.request_id import id_of
from mla_serve.serve.settings import Settings

log = logging.getLogger("mla_serve")
GRACE_S = 5.0  # beyond the longest time that a request may take
WATCH_S = 1.0
LAST_CONNECTIONS_S = 0.5
ENDING = "the service is ending; send it again, to another instance or a little later"


class Drain:
    """Whether this worker is ending, and the steps of its end."""

    def __init__(
        self,
        settings: Settings,
        exit_process: Callable[[int], object] = os._exit,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """Serve until `start` is called. Args: before, called at its beginning."""
        self.on = False
        self.accepted = 0
        self.answered = 0
        self._settings = settings
        self._exit_process = exit_process
        self._before = before
        self._uvicorn_handler: Callable[[int, FrameType | None], object] | None = None

    def install(self) -> None:
        """Handle SIGTERM before uvicorn does. Call it in the main thread, with the loop running."""
        loop = asyncio.get_running_loop()
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            self._uvicorn_handler = handler
            signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self.start))

    def start(self, code: int = 0) -> None:
        """Begin to end; a second call changes nothing."""
        if self.on:
            return
        self.on = True
        self._before()
        log.info("draining: no longer ready, answering what was accepted")
        settings = self._settings
        deadline = threading.Timer(settings.drain_s + settings.request_timeout_s + GRACE_S, self._exit_process, [code])
        deadline.daemon = True
        deadline.start()
        asyncio.get_running_loop().call_later(settings.drain_s, self._signal_uvicorn)

    async def watch_threads(self, longest: Callable[[], float]) -> None:
        """End this worker when a thread does not come back; the main process then starts a new one.

        Args: longest, returns for how many seconds a thread has been busy.
        """
        while longest() < self._settings.stuck_s:
            await asyncio.sleep(WATCH_S)
        log.critical("a thread has been busy for more than %g s; this worker is replaced", self._settings.stuck_s)
        self.start(1)

    def _signal_uvicorn(self) -> None:
        if self._uvicorn_handler is not None:
            self._uvicorn_handler(signal.SIGTERM, None)


class Drained:
    """Count accepted and answered requests, and close connections while the worker is ending."""

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
    """Answer 503, in a thread, to every connection that is made after so many seconds.

    Returns: a function that ends the thread.
    """
    own = socket.socket(fileno=os.dup(listener.fileno()))
    loop, end = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_refuse(own, seconds, end))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it could not listen
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
        await asyncio.wait(running, timeout=LAST_CONNECTIONS_S)


async def _refuse_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a head, answer, and close the connection after the client has had time to read the answer."""
    with contextlib.closing(writer), contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(LINGER_S):
            await reader.readuntil(b"\r\n\r\n")
        kind = PROBLEM_KINDS[Unavailable]
        writer.write(problem_bytes(Problem(kind.type, kind.title, kind.status, ENDING, request_id=id_of(()))))
        writer.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await reader.read(2**16):
                pass
