"""Connections before there is a request: long heads, slow heads, idle ones, too many. A uvicorn of its own on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from mla_serve.serve.connection import Connection, Crowd
from mla_serve.serve.settings import Settings

LIMITS = Settings(max_url_bytes=100, max_headers=10, max_header_bytes=1000, header_timeout_s=0.3)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@contextlib.asynccontextmanager
async def serving(settings: Settings = LIMITS, most: int = 100) -> AsyncIterator[int]:
    """Serve `hello`; yields the port."""
    protocol: Any = functools.partial(Connection, settings=settings, crowd=Crowd(most))
    config = uvicorn.Config(
        hello, port=0, http=protocol, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


def ask(content: bytes, settings: Settings = LIMITS) -> bytes:
    """Send bytes on one connection; return all that comes back before it is closed."""

    async def send() -> bytes:
        async with serving(settings) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(content)
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return answer

    return asyncio.run(send())


def assert_problem(answer: bytes, status: int, slug: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert json.loads(body)["type"] == f"/problems/{slug}"


def test_an_ordinary_request_is_answered() -> None:
    assert ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").endswith(b"hi")


@pytest.mark.parametrize(
    ("head", "status", "slug"),
    [
        (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\n\r\n", 414, "url-too-long"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 11 + b"\r\n", 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 1000 + b"\r\n\r\n", 431, "head-too-large"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 5000, 431, "head-too-large"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nX\x00: a\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nX: a\x1b[31m\r\n\r\n", 200, ""),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed-request",
        ),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "malformed-request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed-request"),
    ],
)
def test_a_bad_head_is_a_problem(head: bytes, status: int, slug: str) -> None:
    answer = ask(head)
    if slug:
        assert_problem(answer, status, slug)


def test_a_head_that_comes_too_slowly_is_given_up() -> None:
    assert_problem(ask(b"GET / HT"), 408, "head-too-slow")


def test_a_connection_that_says_nothing_is_closed() -> None:
    assert ask(b"") == b""


def test_the_second_head_of_a_connection_has_a_time_too() -> None:
    answer = ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"head-too-slow" in answer


def test_websockets_are_not_spoken() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert ask(upgrade).startswith(b"HTTP/1.1 200")


def test_when_there_are_too_many_the_one_that_idled_longest_goes() -> None:
    async def crowd() -> list[bool]:
        patient = Settings(header_timeout_s=30.0)
        async with serving(patient, most=3) as port:
            streams: list[Stream] = []
            for _ in range(4):
                streams.append(await asyncio.open_connection("127.0.0.1", port))
                await asyncio.sleep(0.05)
            gone = await asyncio.wait_for(streams[0][0].read(), 30) == b""
            streams[3][1].write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answered = (await asyncio.wait_for(streams[3][0].read(), 30)).endswith(b"hi")
            for _, writer in streams:
                writer.close()
            return [gone, answered]

    assert asyncio.run(crowd()) == [True, True]
