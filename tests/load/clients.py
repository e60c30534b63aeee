"""Clients that ask without pause, and compare every answer with the offline predictor's."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.commands.tune_load import Answer, Connection, ConnectionEnded, form_request

TOLERANCE = 1e-5
SAMPLES = 6


@dataclasses.dataclass(frozen=True)
class Question:
    """A request, and what the offline predictor of each model says to it: {manifest hash: numbers}, see `numbers_of`."""

    subset: str
    request: bytes
    answers: dict[str, dict[str, float]]


@dataclasses.dataclass
class Tally:
    """What came back."""

    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    subsets: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    models: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    times: list[float] = dataclasses.field(default_factory=list)
    """Seconds of each answer, as they came."""
    slowest: float = 0.0
    slowest_timing: str = ""
    """What the service says that the slowest answer spent its time on."""
    wrong: int = 0
    first_wrong: str = ""
    cut: int = 0
    """Connections that ended without an answer."""
    half: int = 0
    """Connections that ended in the middle of an answer."""

    @property
    def answered(self) -> int:
        """How many answers came."""
        return sum(self.statuses.values())

    @property
    def failures(self) -> int:
        """How many of them were 5xx, but for 503 and 504."""
        return sum(count for status, count in self.statuses.items() if status >= 500 and status not in (503, 504))


def questions(*models: Path) -> list[Question]:
    """Make requests of every subset of the modalities, and ask the offline predictors."""
    predictors = [Predictor(Bundle.load(model)) for model in models]
    inputs = predictors[0].bundle.inputs
    found = []
    for seed in range(SAMPLES):
        generator = np.random.default_rng(seed)
        sample = {name: reader.generate(generator) for name, reader in inputs.items()}
        for size in range(1, len(inputs) + 1):
            for names in itertools.combinations(inputs, size):
                part = {name: sample[name] for name in names}
                answers = {p.bundle.manifest.sha256: numbers_of(p.predict([part])[0].to_dict()) for p in predictors}
                found.append(Question("+".join(names), form_request(part), answers))
    return found


async def ask(connection: Connection, question: Question, tally: Tally) -> Answer:
    """Ask once, and note what comes back."""
    start = time.monotonic()
    answer = await connection.ask(question.request)
    took = time.monotonic() - start
    tally.times.append(took)
    if took > tally.slowest:
        tally.slowest, tally.slowest_timing = took, answer.header("server-timing")
    tally.statuses[answer.status] += 1
    if answer.status == 200:
        _note(json.loads(answer.body), question, tally)
    return answer


def _note(answer: dict[str, Any], question: Question, tally: Tally) -> None:
    """Compare an answer with the offline predictor's."""
    sha256 = answer["model"]["sha256"]
    expected = question.answers.get(sha256, {})
    tally.subsets[question.subset] += 1
    tally.models[sha256] += 1
    if not _equal(numbers_of(answer), expected):
        tally.wrong += 1
        tally.first_wrong = tally.first_wrong or f"{question.subset} by {sha256}: {answer}, expected {expected}"


async def keep_asking(port: int, asked: Sequence[Question], tally: Tally, seconds: float, seed: int) -> None:
    """Ask one question after the other; on a connection that ends, go on with a new one."""
    order, end, connection = random.Random(seed), time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            connection = connection or await Connection.open(port)
            answer = await ask(connection, order.choice(asked), tally)
            if answer.header("connection") == "close":
                connection.close()
                connection = None
        except ConnectionEnded as error:
            tally.cut += 1
            tally.half += bool(error.partial)
            connection = None
        except OSError:
            tally.cut += 1
            connection = None
            await asyncio.sleep(0.05)
    if connection is not None:
        connection.close()


async def load(port: int, asked: Sequence[Question], seconds: float, clients: int) -> Tally:
    """Let many ask at once."""
    tally = Tally()
    await asyncio.gather(*(keep_asking(port, asked, tally, seconds, seed) for seed in range(clients)))
    return tally


def numbers_of(answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an answer: the probability of each class or label, or the value and its deviation."""
    if "probabilities" in answer:
        return {each["label"]: each["probability"] for each in answer["probabilities"]}
    return {name: answer[name] for name in ("value", "deviation")}


def _equal(given: dict[str, float], expected: dict[str, float]) -> bool:
    return given.keys() == expected.keys() and all(
        math.isclose(given[name], expected[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE) for name in given
    )
