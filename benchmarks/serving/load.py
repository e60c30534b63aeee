"""Load a service with the cases of a bundle, check every answer, and measure how long each took.

What an answer says is worked out once for each distinct body; an equal body afterwards costs one look in a set.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
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
from mla_serve.bundle.results import ClassPrediction
from mla_serve.commands.tune_load import Answer, Connection, ConnectionEnded, form_request, keep_busy, post_request
from mla_serve.errors import MlaServeError
from mla_serve.inputs import Payload

MARGIN = 1e-3  # between the two most probable labels: beyond what float32 may change
KEPT_BODIES = 20_000
RequestWriter = Callable[[Mapping[str, Payload]], bytes]


class WrongAnswer(MlaServeError):
    """An answer that ends the benchmark: another status than 200, another label than the predictor's, or none."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A request, the subset that it holds, and the label that the predictor gives; None where none can be expected."""

    subset: str
    request: bytes
    label: str | None


@dataclasses.dataclass(frozen=True)
class LoadResult:
    """What came back in the measured time: {subset: milliseconds of each answer}, and what the load itself cost."""

    seconds: float
    latencies: dict[str, list[float]]
    client_cpu_s: float

    @property
    def answers(self) -> int:
        """How many there were."""
        return sum(map(len, self.latencies.values()))


def json_request(sample: Mapping[str, Payload]) -> bytes:
    """Write a whole request to /predict as JSON, files in base64."""
    fields = {
        name: base64.b64encode(payload).decode() if isinstance(payload, bytes) else payload
        for name, payload in sample.items()
    }
    return post_request("/predict", json.dumps(fields).encode(), "application/json")


@dataclasses.dataclass(frozen=True)
class Case:
    """Payloads of one subset and the label that the predictor gives them."""

    subset: str
    sample: Mapping[str, Payload]
    label: str


def cases_of(bundle: Bundle) -> list[Case]:
    """Make every subset of the bundle's golden samples, but those whose label rounding or the fusion rule could change."""
    predictor, found = Predictor(bundle), []
    for golden in bundle.golden_samples():
        for size in range(1, len(golden) + 1):
            for names in itertools.combinations(golden, size):
                sample = {name: golden[name] for name in names}
                ours, plain = (predictor.predict([sample], rule)[0] for rule in ("calibrated", "undiscounted"))
                assert isinstance(ours, ClassPrediction)
                assert isinstance(plain, ClassPrediction)
                first, second = ours.probabilities[:2]
                if ours.label == plain.label and first.probability - second.probability > MARGIN:
                    found.append(Case("+".join(names), sample, ours.label))
    return found


def shuffled(cases: Sequence[Case], seed: int) -> Iterator[Case]:
    """Repeat the cases without end: each subset equally often, in an order that the seed fixes, the same for all systems."""
    order = random.Random(seed)
    by_subset: dict[str, list[Case]] = {}
    for case in cases:
        by_subset.setdefault(case.subset, []).append(case)
    subsets = list(by_subset)
    while True:
        order.shuffle(subsets)
        for subset in subsets:
            yield order.choice(by_subset[subset])


class AnswerChecker:
    """Tell right answers from wrong ones."""

    def __init__(self) -> None:
        """Know no right answer yet."""
        self._right: set[tuple[str | None, bytes]] = set()

    def check(self, question: Question, answer: Answer) -> None:
        """Accept an answer.

        Raises: WrongAnswer.
        """
        if answer.status != 200:
            status_line = answer.head.partition(b"\r\n")[0].decode()
            raise WrongAnswer(f"{question.subset}: {status_line}: {answer.body[:300]!r}")
        if (question.label, answer.body) in self._right:
            return
        given = json.loads(answer.body).get("label")
        if question.label is not None and given != question.label:
            raise WrongAnswer(f"{question.subset}: answered {given!r}, the predictor says {question.label!r}")
        if len(self._right) < KEPT_BODIES:
            self._right.add((question.label, answer.body))


def measure_load(
    port: int,
    questions: Iterator[Question],
    connections: int,
    seconds: float,
    warm_up: float,
    mark: Callable[[bool], None] = lambda _: None,
) -> LoadResult:
    """Ask without pause over so many connections, and measure the answers that come within `seconds` after `warm_up`.

    Args: mark, called when the measured time begins (True) and when it has ended (False).
    Raises: WrongAnswer for the first answer that is wrong or missing, and where none comes at all.
    """
    gc.disable()
    try:
        return uvloop.run(_measure_load(port, questions, connections, seconds, warm_up, mark))
    finally:
        gc.enable()


async def _measure_load(
    port: int,
    questions: Iterator[Question],
    connections: int,
    seconds: float,
    warm_up: float,
    mark: Callable[[bool], None],
) -> LoadResult:
    checker, latencies, measuring = AnswerChecker(), dict[str, list[float]](), False

    async def ask_next(connection: Connection) -> None:
        question, began = next(questions), time.perf_counter()
        try:
            answer = await connection.ask(question.request)
        except (ConnectionEnded, ValueError) as error:
            raise WrongAnswer(f"{question.subset}: {error}") from error
        took = time.perf_counter() - began
        checker.check(question, answer)
        if measuring:
            latencies.setdefault(question.subset, []).append(1000 * took)

    load = asyncio.ensure_future(keep_busy(port, ask_next, connections))
    try:
        await _let_run(load, warm_up)
        mark(True)
        start, cpu, measuring = time.perf_counter(), time.process_time(), True
        await _let_run(load, seconds)
        measuring, took, spent = False, time.perf_counter() - start, time.process_time() - cpu
        mark(False)
    finally:
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError, MlaServeError):
            await load
    if not latencies:
        raise WrongAnswer(f"no answer within {warm_up + seconds:g} s over {connections} connections")
    return LoadResult(took, latencies, spent)


async def _let_run(load: asyncio.Future[float], seconds: float) -> None:
    """Let the load run; raises as soon as it fails."""
    done, _ = await asyncio.wait([load], timeout=seconds)
    for future in done:
        future.result()


def timing_stages(port: int, cases: Sequence[Case]) -> dict[str, list[str]]:
    """Ask one case of each subset, and return the stages that the answer's Server-Timing header names."""
    return asyncio.run(_timing_stages(port, {case.subset: case for case in cases}))


async def _timing_stages(port: int, by_subset: Mapping[str, Case]) -> dict[str, list[str]]:
    named = {}
    connection = await Connection.open(port)
    for subset, case in sorted(by_subset.items()):
        answer = await connection.ask(form_request(case.sample))
        parts = answer.header("server-timing").split(",")
        named[subset] = [part.split(";")[0].strip() for part in parts if part.strip()]
    connection.close()
    return named
