"""Every request has an id, in its answer, its problem and its log lines; no log line holds a request's content."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import InputError
from mla_serve.serve.api import create_app
from mla_serve.serve.bento.logs import JsonFormatter
from mla_serve.serve.problems import problem_response
from mla_serve.serve.request_id import REQUEST_ID, RequestIdMiddleware
from mla_serve.serve.settings import Settings

MADE = re.compile(r"[0-9a-f]{32}")
MARKER = "the-secret-that-was-sent"


@pytest.fixture
def client(predictor: Predictor) -> Iterator[TestClient]:
    app = RequestIdMiddleware(create_app(predictor, Settings(device="cpu")), lambda path: path[:20], log=True)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("given", ["abc-DEF_1.2", "a" * 64])
def test_a_plain_id_is_taken_over(client: TestClient, given: str) -> None:
    reply = client.post("/predict", headers={"X-Request-ID": given}, files=[("text", (None, "abc"))])
    assert reply.headers["x-request-id"] == given
    assert "request_id" not in reply.json()  # an answer that was asked for has it in its header alone


@pytest.mark.parametrize("given", ["", "a" * 65, "two words", "line\tbreak", 'quo"te', "\x1b[31m", "é", "%0a"])
def test_any_other_id_is_replaced(client: TestClient, given: str) -> None:
    reply = client.post("/predict", headers={"X-Request-ID": given.encode()}, files=[("text", (None, " "))])  # type: ignore[dict-item]
    assert MADE.fullmatch(reply.headers["x-request-id"])
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert reply.json()["field"] == "text"


def test_ids_differ_and_are_gone_after_the_request(client: TestClient) -> None:
    ids = {client.get("/model").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20
    assert REQUEST_ID.get() is None


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("GET", "/predict"), ("POST", "/predict"), ("POST", "/predict/batch")]
)
def test_every_problem_names_its_request(client: TestClient, method: str, path: str) -> None:
    reply = client.request(method, path)
    assert reply.status_code >= 400
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_the_access_log_holds_nothing_that_was_sent(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mla_serve.access"):
        reply = client.post(f"/predict?{MARKER}", files=[("text", (None, MARKER))], headers={"X-Marker": MARKER})
        client.get("/livez")
    (record,) = [each for each in caplog.records if each.name == "mla_serve.access"]
    facts: Any = record.__dict__["facts"]
    assert (facts["method"], facts["path"], facts["status"]) == ("POST", "/predict", 400)  # the query is no option
    assert facts["milliseconds"] > 0
    assert reply.headers["x-request-id"] in record.getMessage()
    assert MARKER not in record.getMessage() + str(facts)


def test_a_bug_in_a_thread_is_logged_under_its_request(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(MARKER)

    app = create_app(predictor, Settings(device="cpu"))
    monkeypatch.setattr(predictor, "decode", fail)
    with TestClient(RequestIdMiddleware(app, str, log=False)) as client:
        body = {"samples": [{"text": MARKER}]}
        assert client.post("/predict/batch", json=body, headers={"X-Request-ID": "mine"}).status_code == 200
    assert "internal error in request mine: RuntimeError" in caplog.text
    assert MARKER not in caplog.text


def test_json_lines_hold_the_request_and_the_facts_and_no_exceptions_words() -> None:
    def write(**more: Any) -> dict[str, Any]:
        record = logging.LogRecord(
            "mla_serve", logging.ERROR, __file__, 1, "two\nlines %s", ("é",), more.pop("info", None)
        )
        record.__dict__.update(more)
        line = JsonFormatter().format(record)
        assert "\n" not in line
        content: dict[str, Any] = json.loads(line)
        return content

    token = REQUEST_ID.set("mine")
    try:
        raise ValueError(MARKER)
    except ValueError:
        content = write(info=sys.exc_info(), facts={"status": 500, "path": Path("/x")})
    finally:
        REQUEST_ID.reset(token)
    assert content["message"] == "two\nlines é"
    assert (content["level"], content["request_id"], content["status"]) == ("error", "mine", 500)
    assert content["exception"] == "ValueError"
    assert MARKER not in json.dumps(content["frames"][-1]).replace("raise ValueError(MARKER)", "")
    assert "request_id" not in write()


def test_what_is_no_request_passes(predictor: Predictor) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        await Starlette()(scope, receive, send)

    with TestClient(RequestIdMiddleware(app, str, log=True)):
        pass
    assert seen == ["lifespan"]
    assert b"request_id" not in problem_response(InputError("a", "b; c")).body
