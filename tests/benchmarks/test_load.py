"""The load generator against a small server: what it counts, what it refuses, and the same mix for everybody."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from benchmarks.serving.load import (
    AnswerChecker,
    Case,
    Question,
    WrongAnswer,
    json_request,
    measure_load,
    shuffled,
    timing_stages,
)
from mla_serve.commands.tune_load import Answer, Connection, ConnectionEnded, form_request, get

SUBSETS = ("text", "image", "image+text")
CASES = [Case(subset, {"text": f"{subset} {number}"}, str(number)) for subset in SUBSETS for number in range(3)]
Reply = Callable[[int], bytes]


def answer(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def served() -> Iterator[Callable[[Reply], int]]:
    """Serve what a function makes of the number of the request, on loopback, in two pieces."""
    loop, ends = asyncio.new_event_loop(), []

    def start(reply: Reply) -> int:
        numbers = itertools.count()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    _, found, rest = head.lower().partition(b"content-length: ")
                    await reader.readexactly(int(rest.split(b"\r\n")[0]) if found else 0)
                    said = reply(next(numbers))
                    for piece in (said[:20], said[20:]):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)
                    if not said:
                        return
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(talk, "127.0.0.1", 0), loop).result(10)
        ends.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield start

    async def stop() -> None:
        for server in ends:
            server.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0.01)

    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def questions(label: str | None = "7") -> Iterator[Question]:
    return (Question(case.subset, form_request(case.sample), label) for case in shuffled(CASES, 0))


def test_what_comes_in_the_measured_time_is_counted_by_subset(served: Callable[[Reply], int]) -> None:
    answered, marks = itertools.count(), []

    def reply(_: int) -> bytes:
        next(answered)
        return answer(b'{"label":"7"}')

    load = measure_load(served(reply), questions(), connections=3, seconds=0.3, warm_up=0.1, mark=marks.append)
    assert marks == [True, False]
    assert set(load.latencies) == set(SUBSETS)
    assert 0 < load.answers < next(answered)  # those of the warm-up are not
    assert load.seconds > 0
    assert all(value > 0 for values in load.latencies.values() for value in values)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (answer(b'{"label":"3"}'), "answered '3', the predictor says '7'"),
        (answer(b"busy", "503 Service Unavailable"), "503 Service Unavailable"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "without Content-Length"),
        (b"", "closed a connection before it answered"),
    ],
)
def test_the_first_wrong_answer_ends_the_run(served: Callable[[Reply], int], said: bytes, told: str) -> None:
    port = served(lambda number: said if number == 5 else answer(b'{"label":"7"}'))
    with pytest.raises(WrongAnswer, match=told):
        measure_load(port, questions(), connections=2, seconds=5, warm_up=0.1)


def test_a_server_that_never_answers_is_an_error(served: Callable[[Reply], int]) -> None:
    with pytest.raises(WrongAnswer, match=r"no answer within 0\.2 s over 1 connections"):
        measure_load(served(lambda _: b"HTTP/1.1 200 OK\r\n"), questions(), connections=1, seconds=0.1, warm_up=0.1)


def test_a_body_that_was_right_is_not_right_for_another_label() -> None:
    checker, right = AnswerChecker(), Answer(200, b"HTTP/1.1 200 OK", b'{"label":"7"}')
    checker.check(Question("text", b"", "7"), right)
    with pytest.raises(WrongAnswer):
        checker.check(Question("text", b"", "8"), right)
    checker.check(Question("text", b"", None), right)


def test_a_connection_that_ends_is_told_from_an_answer(served: Callable[[Reply], int]) -> None:
    async def ask_until_it_ends(port: int) -> bytes:
        connection = await Connection.open(port)
        assert (await connection.ask(form_request({"text": "nol"}))).body == b"whole"
        with pytest.raises(ConnectionEnded) as raised:
            await connection.ask(form_request({"text": "nol"}))
        return raised.value.partial

    port = served(lambda number: answer(b"whole") if number == 0 else b"")
    assert asyncio.run(ask_until_it_ends(port)) == b""


def test_headers_are_found_whatever_their_case() -> None:
    head = b"HTTP/1.1 200 OK\r\nServer-Timing: Fuse;dur=1\r\nX-Y:  Z "
    assert [Answer(200, head, b"").header(name) for name in ("server-timing", "x-y", "y")] == ["Fuse;dur=1", "Z", ""]


def test_a_path_is_got_and_an_answer_that_is_cut_is_an_error(served: Callable[[Reply], int]) -> None:
    port = served(lambda number: answer(b"ready") if number == 0 else b"")
    assert get(port, "/readyz") == (200, b"ready")
    with pytest.raises(ConnectionError, match="/readyz"):
        get(port, "/readyz")


def test_every_system_gets_the_same_order_and_every_subset_its_share() -> None:
    first, second, other = (list(itertools.islice(shuffled(CASES, seed), 90)) for seed in (1, 1, 2))
    assert first == second != other
    assert Counter(case.subset for case in first) == dict.fromkeys(SUBSETS, 30)


def test_json_carries_files_in_base64() -> None:
    head, _, body = json_request({"image": b"\x00\xff", "text": "nol"}).partition(b"\r\n\r\n")
    assert json.loads(body) == {"image": "AP8=", "text": "nol"}
    assert f"Content-Length: {len(body)}".encode() in head


def test_stages_are_read_off_the_header(served: Callable[[Reply], int]) -> None:
    port = served(lambda _: answer(b"{}", head="Server-Timing: decode-text;dur=0.10, fuse;dur=1.5\r\n"))
    assert timing_stages(port, CASES) == {subset: ["decode-text", "fuse"] for subset in SUBSETS}
