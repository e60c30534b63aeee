"""Metrics: every answer is counted once, under labels that no client can add to."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import (
    ClassOpinion,
    ClassPrediction,
    LabelsPrediction,
    NumberOpinion,
    NumberPrediction,
    Prediction,
)
from mla_serve.inputs import Payload
from mla_serve.serve import metrics
from mla_serve.serve.api import create_app
from mla_serve.serve.metrics import (
    MOST_ANSWERS,
    NO_LABEL,
    OTHER_LABEL,
    flush_forever,
    forget_dead_workers,
    meters,
    metrics_buffer,
    named_answers,
    pattern,
)
from mla_serve.serve.settings import Settings
from mla_serve.tasks import Classes, Labels, Number, Task

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def series() -> Series:
    """Read all series of this process, with what requests have added so far."""
    from prometheus_client import generate_latest

    metrics_buffer().flush()
    found = {}
    for family in text_string_to_metric_families(generate_latest().decode()):
        for each in family.samples:
            found[each.name, tuple(sorted(each.labels.items()))] = each.value
    return found


class Growth:
    """How much a series has grown since the start of a test."""

    def __init__(self) -> None:
        self.before = series()

    def __call__(self, name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return series().get(key, 0.0) - self.before.get(key, 0.0)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(create_app(predictor, Settings(device="cpu"))) as client:
        yield client


def send(client: TestClient, sample: Mapping[str, Payload]) -> Any:
    parts = [
        (name, (name, value) if isinstance(value, bytes) else (None, str(value))) for name, value in sample.items()
    ]
    return client.post("/predict", files=parts)


def test_every_subset_is_counted_once_with_the_answers_of_its_modalities(
    client: TestClient, predictor: Predictor, sample: dict[str, Payload], all_subsets: Callable[..., Any]
) -> None:
    growth, weights = Growth(), dict.fromkeys(predictor.names, 0.0)
    for subset in all_subsets(predictor.names):
        answer = send(client, {name: sample[name] for name in subset}).json()
        for name in subset:
            weights[name] += answer["modalities"][name]["weight"]
    for subset in all_subsets(predictor.names):
        assert growth("mla_samples_total", available="+".join(subset)) == 1
    for name in predictor.names:
        count = sum(name in subset for subset in all_subsets(predictor.names))
        assert growth("mla_weight_count", modality=name) == count
        assert growth("mla_weight_sum", modality=name) == pytest.approx(weights[name])
        assert growth("mla_entropy_count", modality=name) == count
        assert growth("mla_entropy_bucket", modality=name, le="1.0") == count  # a share of the largest possible
        assert growth("mla_stage_seconds_count", stage=f"decode-{name}") == count
        assert growth("mla_stage_seconds_count", stage=f"encode-{name}") == count


def test_a_batch_counts_its_samples_and_its_size(client: TestClient, predictor: Predictor) -> None:
    growth = Growth()
    text = next(name for name, reader in predictor.bundle.inputs.items() if reader.kind == "text")
    samples = [{text: "abc"}, {text: "bcd"}, {text: " "}]
    assert client.post("/predict/batch", json={"samples": samples}).status_code == 200
    assert growth("mla_samples_total", available=text) == 2
    assert growth("mla_batch_size_sum", modality=text) == 2
    assert growth("mla_batch_size_count", modality=text) == 1
    assert growth("mla_problems_total", modality=text, problem="invalid-input") == 1


def test_an_undecodable_input_is_counted_by_reason(client: TestClient, predictor: Predictor) -> None:
    growth = Growth()
    audio = next(name for name, reader in predictor.bundle.inputs.items() if reader.kind == "audio")
    assert send(client, {audio: b"no sound at all"}).status_code == 415
    assert growth("mla_problems_total", modality=audio, problem="unsupported-format") == 1
    assert growth("mla_stage_seconds_count", stage="fuse") == 0


def test_no_label_comes_from_a_client(client: TestClient) -> None:
    before = set(series())
    for field in ("evil", 'quo"te', "x" * 1000):
        assert send(client, {field: "x"}).status_code == 400
        assert client.post(f"/{field[:50]}").status_code == 404
    new = set(series()) - before
    assert {dict(labels).get("modality", "") for _, labels in new} <= {""}
    assert {dict(labels)["problem"] for name, labels in new if name == "mla_problems_total"} <= {
        "unknown-field",
        "not-found",
    }


def test_patterns_of_many_modalities_are_named_by_number() -> None:
    names = [f"m{at}" for at in range(12)]
    assert pattern(names[:3], 12) == "3 of 12"
    assert pattern(names[:3], 10) == "m0+m1+m2"


def test_a_number_that_is_not_finite_is_not_observed() -> None:
    growth = Growth()
    for weight in (0.5, float("nan"), float("inf")):
        opinion = ClassOpinion(weight, 0.0, 0.0, "a", 1.0)
        answer = ClassPrediction("a", 1.0, [], 0.0, "calibrated", {"text": opinion}, [])
        metrics_buffer().add_answer(answer, Classes(("a", "b")))
    assert growth("mla_weight_count", modality="text") == 1
    assert growth("mla_weight_sum", modality="text") == 0.5
    assert growth("mla_entropy_count", modality="text") == 3


def counted(task: Task, *predictions: Prediction) -> Growth:
    growth = Growth()
    for each in predictions:
        metrics_buffer().add_answer(each, task)
    return growth


def test_the_classes_that_are_answered_are_counted_by_name() -> None:
    task = Classes(tuple(f"class {at}" for at in range(MOST_ANSWERS + 20)))
    growth = counted(
        task,
        *(
            ClassPrediction(label, 1.0, [], math.log(len(task.names)), "calibrated", {}, ["text"])
            for label in (task.names[0], task.names[0], *task.names[-20:])
        ),
    )
    assert growth("mla_answers_total", answer="class 0") == 2
    assert growth("mla_answers_total", answer=OTHER_LABEL) == 20
    assert growth("mla_answer_entropy_count") == 22
    assert growth("mla_answer_entropy_sum") == pytest.approx(22)  # each as undecided as can be


def test_each_label_that_is_answered_is_counted_and_none_too() -> None:
    task = Labels(("drama", "crime"))
    entropies = ([], 0.0), (["drama"], math.log(2)), (["crime", "drama"], 2 * math.log(2))
    growth = counted(task, *(LabelsPrediction(own, [], nats, "calibrated", {}, ["text"]) for own, nats in entropies))
    for answer, count in (("drama", 2), ("crime", 1), (NO_LABEL, 1), (OTHER_LABEL, 0)):
        assert growth("mla_answers_total", answer=answer) == count
    assert growth("mla_answer_entropy_sum") == pytest.approx(1.5)


def test_numbers_are_counted_by_how_far_they_are_from_the_training_values() -> None:
    task = Number("price", "EUR", log=True, mean=3.0, deviation=2.0)
    values = (math.exp(3.0), math.exp(3.0 + 2 * 1.2), math.exp(3.0 - 2 * 5))
    opinion = NumberOpinion(0.5, 0.0, 0.5 * math.log(2 * math.pi * math.e * 0.25), 1.0, 1.0)
    growth = counted(task, *(NumberPrediction(v, "EUR", 1.0, 0.0, "calibrated", {"text": opinion}, []) for v in values))
    assert growth("mla_value_count", column="price") == 3
    for bound, count in (("-4.0", 1), ("-0.5", 1), ("0.0", 2), ("1.0", 2), ("1.5", 3)):
        assert growth("mla_value_bucket", column="price", le=bound) == count
    assert growth("mla_entropy_sum", modality="text") == pytest.approx(1.5)  # half of the training deviation is left
    assert not [name for (_, labels), grown in series().items() for _, name in labels if name == "EUR" and grown]


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (Classes(("a", "b")), {"a", "b"}),
        (Number("price"), set()),
        (Labels(tuple(f"l{at}" for at in range(500))), {f"l{at}" for at in range(MOST_ANSWERS)}),
    ],
)
def test_the_names_of_answers_are_bounded(task: Task, names: set[str]) -> None:
    assert named_answers(task) == names


def test_the_length_of_the_queue_is_exported() -> None:
    async def look() -> None:
        task = asyncio.ensure_future(flush_forever(lambda: 7))
        while series().get(("mla_queue_depth", ()), 0) != 7:
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(asyncio.wait_for(look(), 30))
    meters().queue.set(0)


def test_flushing_goes_on_after_a_bug(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(metrics, "FLUSH_S", 0.01)
    seen: list[int] = []

    def waiting() -> int:
        seen.append(0)
        if len(seen) == 1:
            raise ZeroDivisionError
        return 0

    async def look() -> None:
        task = asyncio.ensure_future(flush_forever(waiting))
        while len(seen) < 2:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(look(), 30))
    assert "the metrics of the last second are lost: ZeroDivisionError" in caplog.text


def test_the_queue_of_a_killed_worker_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = tmp_path / f"gauge_livesum_{int(done.stdout)}.db"
    alive = tmp_path / f"gauge_livesum_{os.getpid()}.db"
    counter = tmp_path / f"counter_{int(done.stdout)}.db"
    for path in (dead, alive, counter):
        path.touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    forget_dead_workers()
    assert not dead.exists()
    assert alive.exists()
    assert counter.exists()  # its answers stay counted
