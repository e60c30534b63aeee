"""The end of a worker."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import Any

import pytest
from starlette.types import Message

from mla_serve.serve.bento.drain import Drain, Drained, refuse_new_connections
from mla_serve.serve.settings import Settings

SCOPE = {"type": "http"}


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(drain: Drain) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Drained(answer, drain)(SCOPE, None, send))  # type: ignore[arg-type]
    return sent


def test_only_a_worker_that_goes_closes_its_connections() -> None:
    drain = Drain(Settings())
    assert ask(drain)[0]["headers"] == []
    drain.on = True
    assert ask(drain)[0]["headers"] == [(b"connection", b"close")]
    assert (drain.accepted, drain.answered) == (2, 2)


def test_sigterm_turns_readiness_off_before_uvicorn_stops_accepting(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {signal.SIGTERM: lambda *_: passed_on.append(drain.on)}
    passed_on: list[bool] = []
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    # the last timer outlives the test, and os._exit would end it all
    drain = Drain(Settings(drain_s=0.05), lambda _: None)

    async def stop() -> None:
        drain.install()
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        await asyncio.sleep(0)
        assert drain.on
        assert not passed_on
        while not passed_on:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(stop(), 30))
    assert passed_on == [True]


def test_other_workers_accept_connections_once_a_worker_ends() -> None:
    left: list[bool] = []
    drain = Drain(Settings(drain_s=0.0), lambda _: None, before=lambda: left.append(drain.on))

    async def stop() -> None:
        drain.start()
        drain.start()

    asyncio.run(stop())
    assert left == [True]


def test_a_worker_whose_thread_does_not_come_back_is_replaced() -> None:
    """However well a file is crafted, it holds a worker no longer than that."""
    left: list[int] = []
    drain = Drain(Settings(stuck_s=1.0, drain_s=0.0, request_timeout_s=0.01), left.append)

    async def be_stuck() -> None:
        import mla_serve.serve.bento.drain as module

        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(module, "GRACE_S", 0.01)
        try:
            await drain.watch_threads(lambda: 2.0)
            assert drain.on
            while not left:
                await asyncio.sleep(0.01)
        finally:
            monkeypatch.undo()

    asyncio.run(asyncio.wait_for(be_stuck(), 30))
    assert left == [1]


def test_whoever_connects_once_the_workers_have_stopped_is_told_so() -> None:
    """The main process holds the listening socket to its end; nobody would answer, and all would be reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        end = refuse_new_connections(listener, 0.1)
        answers = [exchange(address, sent) for sent in (b"GET /model HTTP/1.1\r\n\r\n", UPLOAD, UPLOAD)]
        with socket.create_connection(address):  # says nothing, and holds up nothing
            answers.append(exchange(address, b"GET / HTTP/1.1\r\n\r\n"))
            end()
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
        assert {b"connection: close", b"retry-after: 1", b"content-type: application/problem+json"} <= set(lines)
        assert json.loads(body)["type"] == "/problems/unavailable"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


UPLOAD = b"POST /predict HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000


def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))
