"""What one request may cost: bytes, on the stream, and seconds. Pure ASGI, nothing is buffered.

The body limit holds for a declared Content-Length and for chunked bodies alike. The application sees TooLarge raised
by `receive`. An answer that goes out before the body has come in, whatever its reason, carries `Connection: close`. The
connection is not closed at once: a client that is still sending would be reset by TCP before it had read the answer.
For LINGER_S seconds what it sends is read and thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.errors import ConfigError, TooLarge
from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import DeadlineExceeded, Overloaded, problem_response

LINGER_S = 3.0
GIVE_UP = "mla_serve.give_up"  # extension of a scope: its `call` ends the connection at once, without a word in the log
# How many bytes of memory one byte of a body is counted as, so that all bodies together take no more than their limit
# (tests/serve/http/test_memory.py measures it). A text in which one character lies beyond U+FFFF takes four bytes for each,
# beside the body and the pieces in which it came. Of forms only those that are worked on are decoded, two at a time.
COST_OF_FORM = 4
COST_OF_OTHER = 8


class BodyMemory:
    """The memory that bodies take, of all requests together."""

    def __init__(self, most: int) -> None:
        """Start with none."""
        self.most = most
        self.bytes = 0

    def add(self, count: int) -> None:
        """Take bytes in.

        Raises: Overloaded when there is no room for them.
        """
        if self.bytes + count > self.most:
            meters().refused.labels("bytes").inc()
            raise Overloaded("too many bytes are on their way in already; send it again after the time in Retry-After")
        self.bytes += count


class BodyLimit:
    """Limit every request's body to `limit` bytes, or to what `by_path` says for its path, and all of them to `held`."""

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        by_path: Mapping[str, int],
        held: int = 2**40,
        cost: Callable[[Scope], int] = lambda _: 1,
    ) -> None:
        """Wrap an application that turns TooLarge and Overloaded into answers.

        Args: cost, how much of `held` each byte of a request's body takes.
        """
        self.app = app
        self.cost = cost
        self.limit = limit
        self.by_path = by_path
        self.held = BodyMemory(held)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body counted."""
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
    """The stream of one request, and of its answer when that comes before the request is complete."""

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
        self.early = False

    async def receive(self) -> Message:
        """Receive the next piece, unless there is too much.

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
        """Send the answer, but leave it open when it comes early."""
        if message["type"] == "http.response.start" and self.more:
            self.early = True
            headers = [header for header in message["headers"] if header[0] != b"connection"]
            message = {**message, "headers": [*headers, (b"connection", b"close")]}
        elif self.early:
            message = {**message, "more_body": True}
        await self._send(message)

    async def close(self) -> None:
        """End an early answer, after throwing away what still arrives."""
        if not self.early:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self.more:
                    self.more = (await self._receive()).get("more_body", False)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Deadline:
    """Answer 504 when a request takes longer than `seconds`, and 500 when the application fails.

    A client that takes an answer too slowly is given up: there is no other answer once one has begun.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """Wrap an application whose work stops when it is cancelled."""
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with an eye on the clock."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        failure: Exception
        try:
            async with asyncio.timeout(self.seconds) as clock:
                await self.app(scope, receive, watched_send)
            return
        except ClientDisconnect:
            return
        except TimeoutError as error:
            give_up = scope.get("extensions", {}).get(GIVE_UP, {}).get("call")
            if started and clock.expired() and give_up is not None:
                give_up()
                return
            late = DeadlineExceeded(f"no answer within {self.seconds:g} s; send less at once, or try again later")
            failure = late if clock.expired() else error
        except Exception as error:
            failure = error
        if started:
            raise failure
        await problem_response(failure)(scope, receive, send)


def cost_of_body(scope: Scope) -> int:
    """Return how many bytes of memory a byte of this request's body takes at most."""
    is_form = any(name == b"content-type" and value[:10].lower() == b"multipart/" for name, value in scope["headers"])
    return COST_OF_FORM if is_form else COST_OF_OTHER


def check_held(held: int, largest: int) -> None:
    """Refuse a limit on all bodies under which the largest that is allowed could never be read.

    Raises: ConfigError.
    """
    if held < COST_OF_OTHER * largest:
        raise ConfigError(
            f"MLA_MAX_HELD_BYTES={held}: a body of {largest} bytes takes up to {COST_OF_OTHER * largest} of memory; "
            "allow that, or smaller bodies by MLA_MAX_BATCH_BODY_BYTES and MLA_MAX_BODY_BYTES"
        )


def _announced(scope: Scope) -> tuple[int, bool]:
    """Return the Content-Length, 0 when there is none, and whether the body comes in chunks."""
    length, chunked = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        chunked = chunked or name == b"transfer-encoding"
    return length, chunked
