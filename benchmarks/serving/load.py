"""Load from one process that costs as little as Python can: prebuilt requests, keep-alive, no parsing that is not needed.

Every answer is looked at. What an answer says is worked out once for each distinct body; the rest is a look in a set.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import uvloop

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import MlaServeError
from mla_serve.inputs import Payload
from tests.load.http import connect, form, post, read_answer

MARGIN = 1e-3  # between the two most probable labels: beyond what float32 may change
CONNECT_EVERY_S = 0.003  # so that every worker gets its share of the connections
KEPT_BODIES = 20_000
HEAD_END = b"\r\n\r\n"
Dialect = Callable[[Mapping[str, Payload]], bytes]


class WrongAnswer(MlaServeError):
    """An answer that ends the benchmark: another status than 200, another label than the predictor's, or none."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A request, the subset that it holds, and the label that the predictor gives; None where none can be expected."""

    subset: str
    request: bytes
    label: str | None


@dataclasses.dataclass(frozen=True)
class GraphOutputs:
    """What came back in the measured time: {subset: milliseconds of each answer}, and what the load itself cost."""

    seconds: float
    latencies: dict[str, list[float]]
    client_cpu_s: float

    @property
    def answers(self) -> int:
        """How many there were."""
        return sum(map(len, self.latencies.values()))


def as_form(sample: Mapping[str, Payload]) -> bytes:
    """Write a request as multipart/form-data."""
    return form(sample)


def as_json(sample: Mapping[str, Payload]) -> bytes:
    """Write a request as JSON, files in base64."""
    fields = {
        name: base64.b64encode(payload).decode() if isinstance(payload, bytes) else payload
        for name, payload in sample.items()
    }
    return post("/predict", json.dumps(fields).encode(), "application/json")


@dataclasses.dataclass(frozen=True)
class Case:
    """Payloads of one subset and the label that the predictor gives them."""

    subset: str
    sample: Mapping[str, Payload]
    label: str


def cases(bundle: Bundle) -> list[Case]:
    """Make every subset of the bundle's golden samples, but those whose label hangs on the last digits or on the rule."""
    predictor, found = Predictor(bundle), []
    for golden in bundle.golden_samples():
        for size in range(1, len(golden) + 1):
            for names in itertools.combinations(golden, size):
                sample = {name: golden[name] for name in names}
                ours, plain = (predictor.predict([sample], rule)[0] for rule in ("calibrated", "undiscounted"))
                first, second = ours.probabilities[:2]
                if ours.label == plain.label and first.probability - second.probability > MARGIN:
                    found.append(Case("+".join(names), sample, ours.label))
    return found


def in_order(found: Sequence[Case], seed: int) -> Iterator[Case]:
    """Deal the cases out for ever: each subset equally often, in an order that the seed fixes, the same for all systems."""
    order = random.Random(seed)
    by_subset: dict[str, list[Case]] = {}
    for case in found:
        by_subset.setdefault(case.subset, []).append(case)
    subsets = list(by_subset)
    while True:
        order.shuffle(subsets)
        for subset in subsets:
            yield order.choice(by_subset[subset])


class Judge:
    """Tells right answers from wrong ones."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._right: set[tuple[str | None, bytes]] = set()

    def check(self, question: Question, head: bytes, body: bytes) -> None:
        """Accept an answer.

        Raises: WrongAnswer.
        """
        if head[9:12] != b"200":
            raise WrongAnswer(f"{question.subset}: {head.splitlines()[0].decode()}: {body[:300]!r}")
        if (question.label, body) in self._right:
            return
        given = json.loads(body).get("label")
        if question.label is not None and given != question.label:
            raise WrongAnswer(f"{question.subset}: answered {given!r}, the predictor says {question.label!r}")
        if len(self._right) < KEPT_BODIES:
            self._right.add((question.label, body))


class _Client(asyncio.Protocol):
    """One connection that asks the next question as soon as the last is answered."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._need = 0
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._need:
            end = self._buffer.find(HEAD_END)
            if end < 0:
                return
            self._need = end + 4 + _length(self._buffer[:end])
        if len(self._buffer) < self._need:
            return
        answer, self._buffer, self._need = self._buffer, b"", 0
        if self._load.note(self._question, answer, self._began):
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(exc)

    def _ask(self) -> None:
        self._question = next(self._load.questions)
        self._began = time.perf_counter()
        self._transport.write(self._question.request)  # type: ignore[attr-defined]


def _length(head: bytes) -> int:
    """Read how long the body is."""
    _, found, rest = head.lower().partition(b"content-length:")
    if not found:
        raise WrongAnswer(f"an answer without Content-Length: {head[:300]!r}")
    return int(rest.split(b"\r\n", 1)[0])


class _Load:
    """What the connections of one run share."""

    def __init__(self, questions: Iterator[Question], judge: Judge) -> None:
        self.questions = questions
        self._judge = judge
        self.latencies: dict[str, list[float]] = {}
        self.measuring = False
        self.ended = asyncio.get_running_loop().create_future()
        self.over = False

    def note(self, question: Question, answer: bytes, began: float) -> bool:
        """Take one answer; returns whether to go on."""
        took = time.perf_counter() - began
        head, _, body = answer.partition(HEAD_END)
        try:
            self._judge.check(question, head, body)
        except MlaServeError as error:
            self.fail(error)
        if self.measuring:
            self.latencies.setdefault(question.subset, []).append(1000 * took)
        return not self.over

    def lost(self, error: Exception | None) -> None:
        """Take note that a connection ended."""
        if not self.over:
            self.fail(WrongAnswer(f"the server closed a connection before it answered ({error})"))

    def fail(self, error: Exception) -> None:
        """End the run."""
        self.over = True
        if not self.ended.done():
            self.ended.set_exception(error)


def ask(
    port: int,
    questions: Iterator[Question],
    connections: int,
    seconds: float,
    warm_up: float,
    mark: Callable[[bool], None] = lambda _: None,
) -> GraphOutputs:
    """Ask without pause over so many connections, and measure the answers that come within `seconds` after `warm_up`.

    Args: mark, called when the measured time begins (True) and when it has ended (False).
    Raises: WrongAnswer for the first answer that is wrong, late or missing.
    """
    gc.disable()
    try:
        return uvloop.run(_ask(port, questions, connections, seconds, warm_up, mark))
    finally:
        gc.enable()


async def _ask(
    port: int,
    questions: Iterator[Question],
    connections: int,
    seconds: float,
    warm_up: float,
    mark: Callable[[bool], None],
) -> GraphOutputs:
    loop = asyncio.get_running_loop()
    load = _Load(questions, Judge())
    transports = []
    for _ in range(connections):
        transports.append((await loop.create_connection(lambda: _Client(load), "127.0.0.1", port))[0])
        await asyncio.sleep(CONNECT_EVERY_S)
    try:
        await _until(load, warm_up)
        mark(True)
        start, cpu, load.measuring = time.perf_counter(), time.process_time(), True
        await _until(load, seconds)
        load.measuring, took = False, time.perf_counter() - start
        spent = time.process_time() - cpu
        mark(False)
        if not load.latencies:
            raise WrongAnswer(f"no answer within {warm_up + seconds:g} s over {connections} connections")
        return GraphOutputs(took, load.latencies, spent)
    finally:
        load.over = True
        for transport in transports:
            transport.abort()


async def _until(load: _Load, seconds: float) -> None:
    """Let the load run; raises as soon as it fails."""
    done, _ = await asyncio.wait([load.ended], timeout=seconds)
    for future in done:
        future.result()


def stages(port: int, found: Sequence[Case]) -> dict[str, list[str]]:
    """Ask one case of each subset, and return the stages that the answer's Server-Timing header names."""
    return asyncio.run(_stages(port, {case.subset: case for case in found}))


async def _stages(port: int, by_subset: Mapping[str, Case]) -> dict[str, list[str]]:
    named = {}
    reader, writer = await connect(port)
    for subset, case in sorted(by_subset.items()):
        writer.write(as_form(case.sample))
        _, headers, _ = await read_answer(reader)
        parts = headers.get("server-timing", "").split(",")
        named[subset] = [part.split(";")[0].strip() for part in parts if part.strip()]
    writer.close()
    return named
