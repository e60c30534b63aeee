"""Connections before there is a request: long heads, slow heads, idle ones, too many. A uvicorn of its own on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from prometheus_client import REGISTRY

from mla_serve.serve.bento.connection import MOST_PIPELINED, protocol
from mla_serve.serve.http.deadline import Deadline
from mla_serve.serve.metrics import metrics_buffer
from mla_serve.serve.settings import Settings

LIMITS = Settings(max_url_bytes=100, max_headers=10, max_header_bytes=1000, header_timeout_s=0.3)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Last:
    """The server that was started last."""

    server: uvicorn.Server

    @classmethod
    def connections(cls) -> set[Any]:
        """Return its connections."""
        return cls.server.server_state.connections


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the method, the path and the body, after having read it all."""
    body, more = b"", scope["method"] != "GET"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await asyncio.sleep(0)
    said = b"%b %b %b" % (scope["method"].encode(), scope["path"].encode(), body)
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


@contextlib.asynccontextmanager
async def serving(settings: Settings = LIMITS, most: int = 100, app: Any = hello) -> AsyncIterator[int]:
    """Serve an application; yields the port."""
    limits: Any = protocol(settings, most)
    config = uvicorn.Config(
        app, port=0, http=limits, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=1
    )
    server = Last.server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


def ask(content: bytes, settings: Settings = LIMITS, app: Any = hello) -> bytes:
    """Send bytes on one connection; return all that comes back before it is closed."""

    async def send() -> bytes:
        async with serving(settings, app=app) as port:
            return await exchange(port, content)

    return asyncio.run(send())


async def exchange(port: int, *segments: bytes) -> bytes:
    """Send segments one after the other; return all that comes back before the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for segment in segments:
        writer.write(segment)
        await asyncio.sleep(0.005)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


def bodies(answer: bytes) -> list[bytes]:
    """Return the bodies of answers that came one after the other."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            answer = rest
            continue
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        found.append(rest[:length])
        answer = rest[length:]
    return found


def assert_problem(answer: bytes, status: int, slug: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert json.loads(body)["type"] == f"/problems/{slug}"
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert headers["x-request-id"] == json.loads(body)["request_id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


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
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "malformed-request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "malformed-request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "malformed-request"),
        (b"get / HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/2.0\r\n\r\n", 400, "malformed-request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed-request"),
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


UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n",
    b"Connection: keep-alive, upgrade\r\nUPGRADE: websocket\r\nSec-WebSocket-Key: x\r\n",
    b"Upgrade: TLS/1.0, other\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
)
BODIES = {
    "counted": (b"Content-Length: 11\r\n\r\n", b"hello world"),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    "trailers": (b"Transfer-Encoding: chunked\r\n\r\n", b"b\r\nhello world\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "expected": (b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n", b"hello world"),
}
LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_is_ignored_and_the_body_is_read(upgrade: bytes, body: str) -> None:
    """In whatever segments head and body come, and the connection goes on with the next request."""
    head, content = BODIES[body]
    sent = b"POST /a HTTP/1.1\r\nHost: a\r\n" + upgrade + head + content
    splits = (len(sent), len(sent) - len(content), len(sent) - 3, 40, len(b"POST /a HTTP/1.1\r\nHost: a\r\n" + upgrade))

    async def send() -> list[bytes]:
        async with serving(Settings(), app=echo) as port:
            return [await exchange(port, sent[:at], sent[at:] + LAST) for at in splits]

    for answer in asyncio.run(send()):
        assert bodies(answer) == [b"POST /a hello world", b"GET /last "]
        assert b"HTTP/1.1 101" not in answer


def test_many_upgrades_in_a_row_are_answered() -> None:
    sent = (b"POST /a HTTP/1.1\r\n" + UPGRADES[0] + b"Content-Length: 1\r\n\r\nx") * 50
    assert bodies(ask(sent + LAST, Settings(), echo)) == [b"POST /a x"] * 50 + [b"GET /last "]


def test_no_tunnel_is_made() -> None:
    assert_problem(ask(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n"), 405, "method-not-allowed")


def test_pipelined_requests_are_answered_in_order_wherever_their_bytes_are_split() -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    stream = (
        b"POST /1 HTTP/1.1\r\nContent-Length: 700\r\n\r\n" + b"\r\n\r\n" + b"x" * 696,
        b"GET /2 HTTP/1.1\r\nX: " + b"y" * 900 + b"\r\n\r\n",
        b"POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        b"GET /4 HTTP/1.1\r\nX: " + b"z" * 900 + b"\r\nConnection: close\r\n\r\n",
    )
    sent = b"".join(stream)
    expected = [b"POST /1 \r\n\r\n" + b"x" * 696, b"GET /2 ", b"POST /3 abcde", b"GET /4 "]
    limits = Settings(max_header_bytes=1000)

    async def send() -> list[bytes]:
        async with serving(limits, most=1000, app=echo) as port:
            together = [exchange(port, sent[:at], sent[at:]) for at in range(len(sent) + 1)]
            return [each for at in range(0, len(sent), 200) for each in await asyncio.gather(*together[at : at + 200])]

    wrong = [at for at, answer in enumerate(asyncio.run(send())) if bodies(answer) != expected]
    assert wrong == []


@pytest.mark.parametrize(
    ("bad", "answers"),
    [
        (b"not HTTP\r\n\r\n", [b"GET /1 ", b"POST /2 x"]),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 5000 + b"\r\n\r\n", [b"GET /1 ", b"POST /2 x"]),
        (b"POST /bad HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n", []),  # the body is no body
    ],
)
def test_a_bad_request_is_never_answered_before_an_earlier_one(bad: bytes, answers: list[bytes]) -> None:
    """A problem in the place of an earlier answer would be taken for it. So the connection is closed without a problem."""
    let_go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await let_go.wait()
        await echo(scope, receive, send)

    async def send() -> bytes:
        async with serving(app=slow) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx" + bad)
            await asyncio.sleep(2 * LIMITS.header_timeout_s)
            let_go.set()
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return answer

    assert bodies(asyncio.run(send())) == answers


def test_a_body_that_breaks_off_its_encoding_is_refused_and_its_request_is_ended() -> None:
    happened: list[str] = []

    async def watch(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            happened.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    sent = b"POST /bad HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno length\r\n"
    assert_problem(ask(sent, app=watch), 400, "malformed-request")
    assert happened[-1] == "http.disconnect"


def test_no_more_than_a_hundred_requests_wait_on_one_connection() -> None:
    answer = ask(b"GET /a HTTP/1.1\r\n\r\n" * 5000, Settings(), echo)
    assert bodies(answer) == [b"GET /a "] * (MOST_PIPELINED + 1)


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
@pytest.mark.parametrize("trickle", [b"\r\n", b"\n", b"\r\n" * 1000])
def test_stray_bytes_keep_no_connection(first: bytes, trickle: bytes) -> None:
    async def send() -> bytes:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            ended = asyncio.ensure_future(reader.read())
            while not ended.done():
                await asyncio.sleep(0.05)
                writer.write(trickle)
            writer.close()
            return ended.result()

    answer = asyncio.run(asyncio.wait_for(send(), 30))
    assert answer.count(b"HTTP/1.1 200") == bool(first)


def test_a_body_that_trickles_in_after_its_answer_keeps_no_connection() -> None:
    async def send() -> bytes:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
            ended = asyncio.ensure_future(reader.read())
            while not ended.done():
                await asyncio.sleep(0.05)
                writer.write(b"x")
            writer.close()
            return ended.result()

    assert asyncio.run(asyncio.wait_for(send(), 30)).startswith(b"HTTP/1.1 200")


def test_a_client_that_takes_nothing_of_its_answer_is_given_up() -> None:
    """Closing alone would wait for good for what is still to be sent."""
    left = asyncio.Event()

    async def much(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"30000000")]})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})
        await receive()
        left.set()

    async def send() -> None:
        async with serving(app=much) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=10)
            writer.write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            await left.wait()
            while Last.connections():
                await asyncio.sleep(0.05)
            writer.transport.abort()
            del reader

    asyncio.run(asyncio.wait_for(send(), 30))


def test_a_client_that_reads_too_slowly_is_given_up_without_a_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also when its next requests wait already."""
    started, content = [], b"x" * 10_000_000

    async def much(scope: Any, receive: Any, send: Any) -> None:
        started.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20000000")]})
        await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": content})

    async def send() -> None:
        async with serving(app=Deadline(much, 0.2)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=10)
            writer.write(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(3)))
            while not started or Last.connections():
                await asyncio.sleep(0.01)
            writer.transport.abort()
            del reader

    with caplog.at_level(logging.DEBUG):
        asyncio.run(asyncio.wait_for(send(), 30))
    assert started == ["/0"]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_bad_heads_leave_nothing_in_the_log_but_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("mla_problems_total", {"problem": "malformed-request", "modality": ""}) or 0.0

    heads = (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nX\x00: a\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\n\r\n")

    async def send() -> None:
        async with serving() as port:
            for head in heads * 10:
                await exchange(port, head)

    before = counted()
    with caplog.at_level(logging.DEBUG):
        asyncio.run(send())
    assert counted() == before + 30
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    ended = {"endpoint": "none", "status": "400"}
    metrics_buffer().flush()
    assert (REGISTRY.get_sample_value("mla_request_seconds_count", ended) or 0) >= 30


def test_a_refusal_bears_the_id_that_its_request_brought() -> None:
    answer = ask(b"GET / HTTP/1.1\r\nX-Request-ID: mine-1\r\n" + b"X: y\r\n" * 11 + b"\r\n")
    assert b"\r\nx-request-id: mine-1\r\n" in answer


def test_a_client_that_is_still_sending_reads_why_it_is_refused() -> None:
    """A connection that is closed with bytes unread would be reset."""

    async def send() -> bytes:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /" + b"a" * 200 + b" HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n")
            for _ in range(30):
                writer.write(b"x" * 100_000)
                await asyncio.sleep(0.005)
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return answer

    assert_problem(asyncio.run(send()), 414, "url-too-long")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b"", b"GET /1 HTTP/1.1\r\n\r\n", [b"HTTP/1.1 200"]),
        (b"GET /1 HTTP/1.1\r\n\r\n", b"GET /2 HTTP/1.1\r\n\r\n", [b"HTTP/1.1 200"] * 2),
        (b"GET /1 HT", b"TP/1.1\r\n\r\n", [b"HTTP/1.1 200"]),
        (b"GET /1 HT", b"", []),
        (b"GET /1 HTTP/1.1\r\n\r\n", b"", [b"HTTP/1.1 200"]),
        (b"", b"", []),
    ],
)
def test_a_request_that_is_on_its_way_when_the_worker_ends_is_answered(
    before: bytes, after: bytes, expected: list[bytes]
) -> None:
    """A client cannot know that the connection which it has just made, or kept, is about to be closed."""

    async def send() -> bytes:
        async with serving(Settings(), app=echo) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(before)
            await asyncio.sleep(0.1)
            for connection in Last.connections():
                connection.shutdown()
            await asyncio.sleep(0.1)
            writer.write(after)
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return answer

    assert re.findall(rb"HTTP/1.1 \d+", asyncio.run(send())) == expected
