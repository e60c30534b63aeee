"""The limits on a request's stream and time, as ASGI calls: what is read, what is answered, what is left open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.errors import ConfigError, TooLarge
from mla_serve.serve.http.body_limits import (
    COST_OF_FORM,
    COST_OF_OTHER,
    BodyLimit,
    BodyMemory,
    check_held,
    cost_of_body,
)
from mla_serve.serve.http.deadline import GIVE_UP, Deadline
from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import Overloaded

Headers = list[tuple[bytes, bytes]]
START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"a", b"b"), (b"connection", b"keep-alive")],
}
BODY: Message = {"type": "http.response.body", "body": b"answer"}


def http(headers: Headers | None = None, path: str = "/predict", type_: str = "http") -> Scope:
    return {"type": type_, "path": path, "method": "POST", "headers": headers or []}


def length(count: int) -> Headers:
    return [(b"host", b"x"), (b"content-length", str(count).encode()), (b"accept", b"*/*")]


def pieces(*sizes: int) -> list[Message]:
    return [
        {"type": "http.request", "body": b"x" * size, "more_body": at < len(sizes) - 1} for at, size in enumerate(sizes)
    ]


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then answer."""
    while (await receive()).get("more_body", False):
        pass
    await send(START)
    await send(BODY)


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(BODY)


def ask(app: ASGIApp, scope: Scope, body: Sequence[Message] = (), more: bool = False) -> tuple[list[Message], int]:
    """Ask an application; returns what it sent, and how many pieces it did not read. With more, the client never stops."""
    left, sent = list(body), []

    async def receive() -> Message:
        if not left and more:
            await asyncio.sleep(5)
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent, len(left)


CHUNKED: Headers = [(b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    ("headers", "body"),
    [(length(10), [10]), (length(10), [4, 6]), (CHUNKED, [4, 6, 0]), ([], [0]), ([(b"content-length", b"ten")], [10])],
)
def test_a_body_up_to_the_limit_is_read_and_its_answer_is_left_as_it_is(headers: Headers, body: list[int]) -> None:
    limit = BodyLimit(answer, 10, {})
    assert ask(limit, http(headers), pieces(*body)) == ([START, BODY], 0)
    assert limit.held.bytes == 0


def test_a_request_without_a_body_may_be_answered_without_reading() -> None:
    assert ask(BodyLimit(answer_at_once, 10, {}), http()) == ([START, BODY], 0)
    assert ask(BodyLimit(answer_at_once, 10, {}), http(length(0))) == ([START, BODY], 0)


@pytest.mark.parametrize(
    ("headers", "body", "unread", "given"),
    [
        (length(11), [11], 1, "a body of 11 bytes"),
        (length(1_000_000), [9, 9], 2, "a body of 1,000,000 bytes"),
        (CHUNKED, [6, 5, 1], 1, "a longer body"),
        (CHUNKED, [11], 0, "a longer body"),
        ([(b"content-length", b"-5")], [11], 0, "a longer body"),
    ],
)
def test_a_body_above_the_limit_is_refused_as_soon_as_that_is_known(
    headers: Headers, body: list[int], unread: int, given: str
) -> None:
    limit = BodyLimit(answer, 10, {})
    with pytest.raises(TooLarge, match=rf"^body: {given}; at most 10 bytes are read here, send less$") as refused:
        ask(limit, http(headers), pieces(*body))
    assert refused.value.field == "body"
    assert limit.held.bytes == 0


def test_what_is_declared_above_the_limit_is_not_read_at_all() -> None:
    seen = []

    async def ask_for_it(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TooLarge):
            await receive()
        seen.append("refused")

    assert ask(BodyLimit(ask_for_it, 10, {}), http(length(11)), pieces(11)) == ([], 1)
    assert seen == ["refused"]


def test_a_path_may_have_a_limit_of_its_own() -> None:
    limit = BodyLimit(answer, 10, {"/predict/batch": 20})
    assert ask(limit, http(length(20), "/predict/batch"), pieces(20))[0] == [START, BODY]
    for path, size in (("/predict/batch", 21), ("/predict", 20)):
        with pytest.raises(TooLarge):
            ask(limit, http(length(size), path), pieces(size))


def test_all_bodies_together_may_fill_their_limit_and_are_released_after_any_outcome() -> None:
    refused = meters().refused.labels("bytes")
    before = refused._value.get()
    held = BodyMemory(100)
    held.add(60)
    held.add(40)
    assert held.bytes == 100
    with pytest.raises(Overloaded, match="Retry-After"):
        held.add(1)
    assert held.bytes == 100
    assert refused._value.get() == before + 1

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert limit.held.bytes == 30
        await receive()
        assert limit.held.bytes == 70
        raise KeyError("app")

    limit = BodyLimit(fail, 1000, {}, held=100)
    with pytest.raises(KeyError, match="app"):
        ask(limit, http(CHUNKED), pieces(30, 40, 0))
    assert limit.held.bytes == 0


def test_a_body_takes_as_much_of_the_limit_as_its_bytes_cost() -> None:
    seen: list[int] = []

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(limit.held.bytes)

    limit = BodyLimit(read, 1000, {}, held=100, cost=lambda scope: len(scope["path"]))
    ask(limit, http(length(20), "/four"), pieces(20))
    assert seen == [100]
    assert limit.held.bytes == 0
    with pytest.raises(Overloaded):
        ask(limit, http(length(20), "/four5"), pieces(20))


@pytest.mark.parametrize(
    ("headers", "cost"),
    [
        ([(b"content-type", b"multipart/form-data; boundary=b")], COST_OF_FORM),
        ([(b"host", b"x"), (b"content-type", b"Multipart/Form-Data")], COST_OF_FORM),
        ([(b"content-type", b"application/json")], COST_OF_OTHER),
        ([(b"content-type", b"application/x-www-form-urlencoded")], COST_OF_OTHER),
        ([(b"x-own", b"multipart/form-data"), (b"content-type", b"application/json")], COST_OF_OTHER),
        ([], COST_OF_OTHER),
    ],
)
def test_a_byte_of_a_form_costs_less_than_one_of_another_body(headers: Headers, cost: int) -> None:
    assert cost_of_body(http(headers)) == cost
    assert COST_OF_FORM < COST_OF_OTHER


def test_a_limit_under_which_the_largest_body_never_fits_is_refused() -> None:
    check_held(COST_OF_OTHER * 100, 100)
    with pytest.raises(ConfigError, match=r"MLA_MAX_HELD_BYTES=799: a body of 100 bytes takes up to 800 of memory"):
        check_held(COST_OF_OTHER * 100 - 1, 100)


def test_without_a_number_bodies_together_are_practically_unlimited() -> None:
    assert BodyLimit(answer, 10, {}).held.most >= 2**40


@pytest.mark.parametrize(("headers", "body"), [(length(9), [3, 3, 3]), (CHUNKED, [3, 3, 3]), (length(1), [1])])
def test_an_early_answer_closes_the_connection_after_reading_the_rest_of_the_body(
    headers: Headers, body: list[int]
) -> None:
    sent, unread = ask(BodyLimit(answer_at_once, 100, {}), http(headers), pieces(*body))
    assert unread == 0
    assert sent == [
        {**START, "headers": [(b"a", b"b"), (b"connection", b"close")]},
        {**BODY, "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


def test_an_answer_is_early_until_the_last_piece_was_read() -> None:
    async def read_one(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await answer_at_once(scope, receive, send)

    early, unread = ask(BodyLimit(read_one, 100, {}), http(length(6)), pieces(3, 3))
    assert (early[0]["headers"][-1], unread) == ((b"connection", b"close"), 0)
    assert ask(BodyLimit(read_one, 100, {}), http(length(6)), pieces(6)) == ([START, BODY], 0)


def test_a_piece_without_more_body_is_the_last() -> None:
    last: Message = {"type": "http.request", "body": b"xxx"}
    assert ask(BodyLimit(answer, 100, {}), http(length(3)), [last]) == ([START, BODY], 0)
    sent, unread = ask(BodyLimit(answer_at_once, 100, {}), http(length(3)), [last])
    assert (sent[-1]["more_body"], unread) == (False, 0)


def test_a_client_that_never_stops_sending_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mla_serve.serve.http.body_limits.LINGER_S", 0.05)
    sent, _ = ask(
        BodyLimit(answer_at_once, 100, {}),
        http(CHUNKED),
        [{**piece, "more_body": True} for piece in pieces(1, 1)],
        more=True,
    )
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_a_client_that_leaves_ends_the_wait() -> None:
    left: Message = {"type": "http.disconnect"}
    sent, unread = ask(BodyLimit(answer_at_once, 100, {}), http(CHUNKED), [left])
    assert unread == 0
    assert sent[-1]["more_body"] is False


@pytest.mark.parametrize("wrap", [lambda app: BodyLimit(app, 10, {}), lambda app: Deadline(app, 0.05)])
@pytest.mark.parametrize("type_", ["lifespan", "websocket"])
def test_what_is_no_request_passes_untouched(wrap: Any, type_: str) -> None:
    calls: list[Any] = []

    async def app(*call: Any) -> None:
        calls.append(call)
        await asyncio.sleep(0.1)

    call: tuple[Any, ...] = ({"type": type_}, object(), object())
    asyncio.run(wrap(app)(*call))
    assert calls == [call]
    assert all(given is passed for given, passed in zip(call, calls[0], strict=True))


def problem(sent: list[Message]) -> dict[str, Any]:
    assert sent[0]["status"] == json.loads(sent[1]["body"])["status"]
    found: dict[str, Any] = json.loads(sent[1]["body"])
    return found


def test_an_answer_in_time_passes_untouched() -> None:
    assert ask(Deadline(answer, 5), http(length(3)), pieces(3)) == ([START, BODY], 0)


def test_a_late_answer_is_a_problem_that_names_the_time_limit() -> None:
    stopped = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            stopped.append("cancelled")
            raise

    found = problem(ask(Deadline(slow, 0.05), http())[0])
    assert found["status"] == 504
    assert "no answer within 0.05 s" in found["detail"]
    assert stopped == ["cancelled"]


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("some library's own")])
def test_an_application_that_fails_is_a_problem_without_its_message(error: Exception) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    found = problem(ask(Deadline(fail, 5), http())[0])
    assert found["status"] == 500
    assert "own" not in found["detail"]


@pytest.mark.parametrize("slow", [False, True])
def test_an_answer_that_has_begun_cannot_become_a_problem(slow: bool) -> None:
    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        if slow:
            await asyncio.sleep(5)
        raise KeyError("late")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return pieces(0)[0]

    with pytest.raises(Exception, match="no answer within" if slow else "late"):
        asyncio.run(Deadline(begin, 0.05)(http(), receive, send))
    assert sent == [START]


@pytest.mark.parametrize(
    ("begun", "late", "given_up"),
    [(True, True, True), (False, True, False), (True, False, False), (False, False, False)],
)
def test_a_client_that_takes_a_begun_answer_too_slowly_is_given_up(begun: bool, late: bool, given_up: bool) -> None:
    calls: list[str] = []

    async def answer_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send(START)
        if late:
            await asyncio.sleep(5)
        raise TimeoutError("some library's own")

    scope = http() | {"extensions": {GIVE_UP: {"call": lambda: calls.append("given up")}}}
    try:
        sent, _ = ask(Deadline(answer_slowly, 0.05), scope)
    except TimeoutError:
        assert (begun, late) == (True, False)  # an answer that has begun and then fails cannot become a problem
    else:
        assert [message.get("status") for message in sent[:1]] == [200 if begun else 504 if late else 500]
        assert len(sent) == (1 if given_up else 2)
    assert calls == ["given up"] * given_up


def test_a_client_that_has_left_gets_no_answer() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    assert ask(Deadline(gone, 5), http()) == ([], 0)
