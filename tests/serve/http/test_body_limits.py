"""What bodies may cost: each, all together, their parts, and the objects that JSON becomes."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from mla_serve.serve.api import create_app
from mla_serve.serve.http.body_limits import BodyLimit
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.problems import Overloaded
from mla_serve.serve.settings import Settings


def serve(tiny_bundle: Path, **limits: Any) -> TestClient:
    settings = Settings(model=tiny_bundle, device="cpu", **limits)
    return TestClient(create_app(open_predictor(settings), settings))


def assert_problem(reply: Any, status: int, slug: str, field: str | None) -> None:
    assert reply.status_code == status, reply.text
    assert reply.json()["type"] == f"/problems/{slug}"
    assert reply.json().get("field") == field


def test_a_part_has_a_limit_of_its_own(tiny_bundle: Path) -> None:
    with serve(tiny_bundle, max_part_bytes=100) as client:
        assert client.post("/predict", files=[("text", (None, b"x" * 100))]).status_code == 200
        assert_problem(client.post("/predict", files=[("image", ("x", b"x" * 101))]), 413, "too-large", "image")
        files = [base64.b64encode(b"x" * size).decode() for size in (100, 101)]
        reply = client.post("/predict/batch", json={"samples": [{"image": file} for file in files]}).json()
        assert [result["problem"]["status"] for result in reply["results"]] == [415, 413]


def test_there_are_no_more_parts_than_fields(tiny_bundle: Path) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\na\r\n'
    with serve(tiny_bundle) as client:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        reply = client.post("/predict", content=part * 10_000 + b"--b--\r\n", headers=headers)
        assert_problem(reply, 422, "invalid-input", "text")


def test_json_is_counted_before_it_is_parsed(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tiny_bundle, max_json_values=1000) as client:
        assert client.post("/predict/batch", json={"samples": [{"text": "a,[{"}]}).status_code == 200
        monkeypatch.setattr("mla_serve.serve.http.json_body.orjson.loads", lambda _: pytest.fail("it was parsed"))
        body = b'{"samples": [' + b"[]," * 1000 + b"[]]}"
        reply = client.post("/predict/batch", content=body, headers={"Content-Type": "application/json"})
        assert_problem(reply, 413, "too-large", "body")


def test_decoding_has_a_budget(tiny_bundle: Path, sample: dict[str, Any]) -> None:
    image = base64.b64encode(sample["image"]).decode()
    with serve(tiny_bundle, max_decode_s=1e-9) as client:
        reply = client.post("/predict/batch", json={"samples": [{"image": image}, {"image": image}]}).json()
        assert reply["results"][0]["label"]
        assert reply["results"][1]["problem"]["type"] == "/problems/too-costly"
        form = {"image": ("x", sample["image"]), "audio": ("x", sample["audio"])}
        assert_problem(client.post("/predict", files=form), 413, "too-costly", "audio")


def test_all_bodies_together_have_a_limit() -> None:
    async def hold() -> None:
        let_go, replies = asyncio.Event(), []

        async def read(scope: Any, receive: Any, send: Any) -> None:
            try:
                await receive()
            except Overloaded:
                replies.append("overloaded")
                return
            await let_go.wait()
            replies.append("read")

        async def receive() -> Message:
            return {"type": "http.request", "body": b"x" * 60, "more_body": False}

        async def send(message: Message) -> None:
            assert message["body"] == b""

        limit = BodyLimit(read, 1000, {}, held=100)
        scope = {"type": "http", "path": "/", "headers": []}
        first = asyncio.ensure_future(limit(scope, receive, send))
        await asyncio.sleep(0)
        await limit(scope, receive, send)
        assert limit.held.bytes == 60
        let_go.set()
        await first
        assert replies == ["overloaded", "read"]
        assert limit.held.bytes == 0

    asyncio.run(hold())


def test_a_queue_that_is_full_is_a_problem_with_a_time(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise Overloaded("full")

    monkeypatch.setattr("mla_serve.serve.workers.threads.WorkerPool.check", full)
    with serve(tiny_bundle) as client:
        for path in ("/predict", "/embed"):
            reply = client.post(path, files=[("text", (None, b"a"))])
            assert_problem(reply, 503, "overloaded", None)
            assert reply.headers["retry-after"] == "1"
        assert client.post("/predict/batch", json={"samples": [{"text": "a"}]}).status_code == 503


def test_model_lists_the_limits(tiny_bundle: Path) -> None:
    with serve(tiny_bundle, max_part_bytes=123) as client:
        assert json.loads(client.get("/model").content)["limits"]["part_bytes"] == 123


@pytest.mark.parametrize("declared", [True, False])
def test_an_answer_before_the_body_is_complete_waits_for_the_client_to_stop(declared: bool) -> None:
    """A client that still sends would be reset before it had read why."""
    pieces: list[Message] = [{"type": "http.request", "body": b"x", "more_body": more} for more in (True, True, False)]
    sent: list[Message] = []

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 401, "headers": [(b"connection", b"keep-alive")]})
        await send({"type": "http.response.body", "body": b"no"})

    async def receive() -> Message:
        return pieces.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", b"3")] if declared else [(b"transfer-encoding", b"chunked")]
    asyncio.run(BodyLimit(refuse, 1000, {})({"type": "http", "path": "/", "headers": headers}, receive, send))
    assert not pieces
    assert sent[0]["headers"] == [(b"connection", b"close")]
    assert [message.get("more_body") for message in sent[1:]] == [True, False]
