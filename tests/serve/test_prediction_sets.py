"""The option `coverage`: prediction sets over REST, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload
from mla_serve.serve.api import create_app
from mla_serve.serve.settings import Settings


@pytest.fixture(scope="module")
def folder(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    scores = np.linspace(0, 1, 99).round(3).tolist()
    return make_bundle(
        tmp_path_factory.mktemp("sets") / "sets", conformal={"calibrated": {"text": scores, "2": scores}}
    )


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    app = create_app(Predictor(Bundle.load(folder)), Settings(model=folder, device="cpu"))
    with TestClient(app) as opened:
        yield opened


def ask(client: TestClient, **fields: str) -> Any:
    return client.post("/predict", files={name: (None, value) for name, value in fields.items()})


def test_a_set_comes_when_it_is_asked_for(client: TestClient) -> None:
    assert ask(client, text="some words").json()["prediction_set"] is None
    for coverage in ("0.5", ".9", "0.99"):
        reply = ask(client, text="some words", coverage=coverage).json()
        assert reply["prediction_set"]["labels"][0] == reply["label"]
        assert set(reply["prediction_set"]["labels"]) <= {each["label"] for each in reply["probabilities"]}
    assert len(ask(client, text="some words", coverage="0.999").json()["prediction_set"]["labels"]) == 3


def test_a_batch_takes_the_option_too(client: TestClient, sample: dict[str, Payload]) -> None:
    image = sample["image"]
    assert isinstance(image, bytes)
    samples = [{"text": "abc"}, {"text": "abc", "image": base64.b64encode(image).decode()}]
    results = client.post("/predict/batch", json={"samples": samples, "coverage": 0.9}).json()["results"]
    assert all(result["prediction_set"]["labels"][0] == result["label"] for result in results)


@pytest.mark.parametrize("coverage", ["0", "1", "1.5", "-0.1", "nan", "inf", "1e-999", "much", ".", "0,9"])
def test_a_coverage_that_cannot_be_had_is_refused(client: TestClient, coverage: str) -> None:
    reply = ask(client, text="some words", coverage=coverage)
    assert reply.status_code == 422
    assert "coverage" in reply.text


@pytest.mark.parametrize("coverage", ["0.9", True, [0.9], 2, 0])
def test_in_json_it_is_a_number_between_0_and_1(client: TestClient, coverage: object) -> None:
    reply = client.post("/predict/batch", json={"samples": [{"text": "abc"}], "coverage": coverage})
    assert reply.status_code == 422
    assert "coverage" in reply.text


def test_a_rule_without_scores_is_refused(client: TestClient) -> None:
    reply = ask(client, text="some words", coverage="0.9", fusion="paper")
    assert reply.status_code == 422
    assert "leave it out" in reply.text


def test_model_lists_the_possible_coverages(client: TestClient) -> None:
    assert client.get("/model").json()["coverage"] == {"calibrated": {"text": 0.99, "2": 0.99}}
