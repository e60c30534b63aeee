"""Ask a service on this machine over HTTP/1.1 at as little cost as Python allows; every measurement under load uses this.

The client shares the processor with the service that it measures. So requests are written as bytes beforehand, a
connection stays open, and of an answer only the status and the length are parsed. httpx, aiohttp and the like take
several times as much processor time for each request.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, cast

from mla_serve.inputs import Payload

BOUNDARY = "b0undary"
CONNECT_EVERY_S = 0.003  # so that every worker accepts its share of the connections
HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"


class Answer(NamedTuple):
    """An HTTP answer; the head is what stands before the body, its final empty line left out."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """Return the value of a header, "" where there is none."""
        _, _, rest = self.head.lower().partition(f"\r\n{name}:".encode())
        start = len(self.head) - len(rest)
        return self.head[start:].partition(b"\r\n")[0].strip().decode("latin-1")


class ConnectionEnded(ConnectionError):
    """The connection ended before a whole answer came."""

    def __init__(self, partial: bytes) -> None:
        """Keep what had come of the answer."""
        super().__init__("the server closed a connection before it answered")
        self.partial = partial


def form_request(sample: Mapping[str, Payload]) -> bytes:
    """Write a whole request to /predict, as multipart/form-data."""
    body = b""
    for name, payload in sample.items():
        is_file = isinstance(payload, bytes)
        text = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        content = text if isinstance(text, bytes) else text.encode()
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        body += (b'; filename="f"' if is_file else b"") + b"\r\n\r\n" + content + b"\r\n"
    return post_request("/predict", body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}")


def post_request(path: str, body: bytes, content_type: str) -> bytes:
    """Write a whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: load\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """A connection that stays open; one request at a time."""

    def __init__(self) -> None:
        """Begin without a request; `Connection.open` connects."""
        self._loop = asyncio.get_running_loop()
        self._buffer, self._length = b"", 0
        self._answer: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to this machine."""
        return (await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port))[1]

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request and wait for its answer.

        Raises: ConnectionEnded; ValueError for an answer without Content-Length.
        """
        if self._transport.is_closing():
            raise ConnectionEnded(b"")
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End the connection, also in the middle of an answer."""
        self._answer = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect an answer, and hand it over when it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        if not self._length:
            end = self._buffer.find(HEAD_END)
            if end < 0:
                return
            _, found, rest = self._buffer[:end].lower().partition(LENGTH)
            if not found:
                self._give(ValueError(f"an answer without Content-Length: {self._buffer[:300]!r}"))
                return
            self._length = end + len(HEAD_END) + int(rest.partition(b"\r\n")[0])
        if len(self._buffer) >= self._length:
            answer, self._buffer, self._length = self._buffer, b"", 0
            head, _, body = answer.partition(HEAD_END)
            self._give(Answer(int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Say so to whoever waits for an answer."""
        self._give(ConnectionEnded(self._buffer))

    def _give(self, result: Answer | Exception) -> None:
        waiting, self._answer = self._answer, None
        if waiting is None or waiting.done():
            return
        if isinstance(result, Answer):
            waiting.set_result(result)
        else:
            waiting.set_exception(result)


async def keep_busy(
    port: int, once: Callable[[Connection], Awaitable[None]], connections: int, seconds: float = float("inf")
) -> float:
    """Open connections, and let each do `once` again and again until the time is up; returns the seconds that it took.

    What `once` raises ends it all.
    """
    opened: list[Connection] = []

    async def repeat(connection: Connection, end: float) -> None:
        while time.perf_counter() < end:
            await once(connection)

    try:
        for _ in range(connections):
            opened.append(await Connection.open(port))
            await asyncio.sleep(CONNECT_EVERY_S)
        began = time.perf_counter()
        await asyncio.gather(*(repeat(connection, began + seconds) for connection in opened))
        return time.perf_counter() - began
    finally:
        for connection in opened:
            connection.close()


def get(port: int, path: str, timeout_s: float = 30) -> tuple[int, bytes]:
    """Get a path on a connection of its own: status and body.

    Raises: OSError when no whole answer comes.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"GET {path}: {error!r}") from error
    finally:
        connection.close()
