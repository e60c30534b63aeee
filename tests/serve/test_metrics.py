"""What is counted: every answer once, under labels that no client can add to, and without the cost of counting."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload
from mla_serve.serve import metrics
from mla_serve.serve.api import create_app
from mla_serve.serve.metrics import SHARES, count_forever, forget_dead_workers, meters, observe, pattern, tally
from mla_serve.serve.settings import Settings

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def series() -> Series:
    """Read all series of this process, after counting what was left."""
    from prometheus_client import generate_latest

    tally().count()
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


def test_every_subset_is_counted_once_with_what_each_modality_said(
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


def test_what_cannot_be_decoded_is_counted_by_reason(client: TestClient, predictor: Predictor) -> None:
    growth = Growth()
    audio = next(name for name, reader in predictor.bundle.inputs.items() if reader.kind == "audio")
    assert send(client, {audio: b"no sound at all"}).status_code == 415
    assert growth("mla_problems_total", modality=audio, problem="unsupported-format") == 1
    assert growth("mla_stage_seconds_count", stage="fuse") == 0


def test_no_label_is_a_clients(client: TestClient) -> None:
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


def test_many_modalities_are_counted_by_number() -> None:
    names = [f"m{at}" for at in range(12)]
    assert pattern(names[:3], 12) == "3 of 12"
    assert pattern(names[:3], 10) == "m0+m1+m2"


@given(st.lists(st.floats(-1, 3) | st.sampled_from([*SHARES, float("nan")]), max_size=30))
def test_observing_many_at_once_is_observing_each(values: list[float]) -> None:
    registry = CollectorRegistry()
    one, all_ = (Histogram(name, "-", buckets=SHARES, registry=registry) for name in ("one", "all"))
    for value in values:
        if np.isfinite(value):
            one.observe(value)
    observe(all_, values)

    def numbers(histogram: Histogram) -> list[float]:
        return [each.value for each in histogram.collect()[0].samples if not each.name.endswith("_created")]

    assert numbers(all_) == pytest.approx(numbers(one))


def test_the_queue_is_looked_at() -> None:
    async def look() -> None:
        task = asyncio.ensure_future(count_forever(lambda: 7))
        while series().get(("mla_queue_depth", ()), 0) != 7:
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(asyncio.wait_for(look(), 30))
    meters().queue.set(0)


def test_counting_goes_on_after_a_bug(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(metrics, "COUNT_S", 0.01)
    seen: list[int] = []

    def waiting() -> int:
        seen.append(0)
        if len(seen) == 1:
            raise ZeroDivisionError
        return 0

    async def look() -> None:
        task = asyncio.ensure_future(count_forever(waiting))
        while len(seen) < 2:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(look(), 30))
    assert "not counted: ZeroDivisionError" in caplog.text


def test_a_worker_that_was_killed_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert counter.exists()  # what it answered stays counted
