"""What a request may send: the bytes of its body, and the memory that all bodies take together.

BodyLimit is a layer of pure ASGI. A body is counted while it streams through it and is not buffered here, so a declared
Content-Length and a chunked body are limited alike. `receive` raises TooLarge into the application, which answers 413.

An answer may be ready before the whole body has arrived: too large, a wrong key, an unknown path. Closing the connection
then would lose the answer: the client still sends, TCP answers bytes for a closed socket with a reset, and a reset makes
the client's system throw away what it has received but not read. So the answer says `Connection: close` and is left
unfinished for at most LINGER_S seconds, in which the rest of the body is read and thrown away; then it is finished, and the
server closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.errors import ConfigError, TooLarge
from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import Overloaded

LINGER_S = 3.0
# How many bytes of memory one byte of a body may take (tests/serve/http/test_memory.py measures it). Python stores a text
# that has one character beyond U+FFFF with four bytes for each character, beside the body and the pieces in which it
# arrived. A form costs less: only the forms that a thread works on are decoded.
COST_OF_FORM = 4
COST_OF_OTHER = 8


class BodyMemory:
    """The memory that the bodies of all requests take together."""

    def __init__(self, most: int) -> None:
        """Start with none. Args: most, in bytes."""
        self.most = most
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count more bytes.

        Raises: Overloaded when they are too many.
        """
        if self.bytes + count > self.most:
            meters().refused.labels("bytes").inc()
            raise Overloaded("too many bytes are on their way in already; send it again after the time in Retry-After")
        self.bytes += count


class BodyLimit:
    """Limit the body of each request to `limit` bytes, or to its path's entry in `by_path`, and all bodies to `held`."""

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        by_path: Mapping[str, int],
        held: int = 2**40,
        cost: Callable[[Scope], int] = lambda _: 1,
    ) -> None:
        """Wrap an application that turns TooLarge and Overloaded into answers.

        Args: held, bytes of memory; cost, returns how many of them one byte of a request's body takes.
        """
        self.app = app
        self.cost = cost
        self.limit = limit
        self.by_path = by_path
        self.held = BodyMemory(held)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.by_path.get(scope["path"], self.limit)
        body = _LimitedBody(receive, send, limit, scope, self.held, self.cost(scope))
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.held.bytes -= body.held
        await body.close()


class _LimitedBody:
    """The body of one request as it arrives, and its answer, which may be sent before the body is complete."""

    def __init__(self, receive: Receive, send: Send, limit: int, scope: Scope, all_held: BodyMemory, cost: int) -> None:
        self._cost = cost
        self._receive = receive
        self._send = send
        self._all_held = all_held
        self.limit = limit
        self.declared, chunked = _announced(scope)
        self.received = 0
        self.held = 0
        self.more = chunked or self.declared > 0
        self.early = False  # whether the answer began before the body was complete

    async def receive(self) -> Message:
        """Receive the next piece of the body.

        Raises: TooLarge; Overloaded.
        """
        if self.declared > self.limit:
            raise self._refusal(f"a body of {self.declared:,} bytes")
        message = await self._receive()
        self.received += len(message.get("body", b""))
        self.more = message.get("more_body", False)
        if self.received > self.limit:
            raise self._refusal("a longer body")
        self._hold(self._cost * len(message.get("body", b"")))
        return message

    def _hold(self, count: int) -> None:
        self._all_held.add(count)
        self.held += count

    def _refusal(self, given: str) -> TooLarge:
        return TooLarge("body", f"{given}; at most {self.limit:,} bytes are read here, send less")

    async def send(self, message: Message) -> None:
        """Send the answer; leave it unfinished if the body is not complete."""
        if message["type"] == "http.response.start" and self.more:
            self.early = True
            headers = [header for header in message["headers"] if header[0] != b"connection"]
            message = {**message, "headers": [*headers, (b"connection", b"close")]}
        elif self.early:
            message = {**message, "more_body": True}
        await self._send(message)

    async def close(self) -> None:
        """Finish an early answer, after reading what the client still sends."""
        if not self.early:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self.more:
                    self.more = (await self._receive()).get("more_body", False)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def cost_of_body(scope: Scope) -> int:
    """Return how many bytes of memory one byte of this request's body takes at most."""
    is_form = any(name == b"content-type" and value[:10].lower() == b"multipart/" for name, value in scope["headers"])
    return COST_OF_FORM if is_form else COST_OF_OTHER


def check_held(held: int, largest: int) -> None:
    """Refuse a limit on the memory of all bodies that is too small for a single body of the largest size.

    Raises: ConfigError.
    """
    if held < COST_OF_OTHER * largest:
        raise ConfigError(
            f"MLA_MAX_HELD_BYTES={held}: a body of {largest} bytes takes up to {COST_OF_OTHER * largest} of memory; "
            "allow that, or smaller bodies by MLA_MAX_BATCH_BODY_BYTES and MLA_MAX_BODY_BYTES"
        )


def _announced(scope: Scope) -> tuple[int, bool]:
    """Return the Content-Length (0 if there is none) and whether the body is chunked."""
    length, chunked = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        chunked = chunked or name == b"transfer-encoding"
    return length, chunked
