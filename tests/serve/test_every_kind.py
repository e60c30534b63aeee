"""Every kind of input can be sent in every way: form, JSON, batch, client, command line; the answers are the same."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import Prediction
from mla_serve.client import Client
from mla_serve.inputs import INPUTS, Payload
from mla_serve.serve.api import create_app
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings
from tests.commands.test_commands import run

SEEDS = (1, 2, 3)
Served = tuple[str, Path]


@pytest.fixture(scope="module", params=sorted(INPUTS))
def served(
    request: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Serve a model with one modality, `thing`, of each kind in turn."""
    bundle = make_bundle(tmp_path_factory.mktemp("kind") / "tiny", {"thing": request.param})
    settings = Settings(model=bundle, device="cpu")
    app = create_app(open_predictor(settings), settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", bundle
    server.should_exit = True
    thread.join()


@pytest.fixture(params=SEEDS)
def payload(request: Any, served: Served) -> Payload:
    return Bundle.load(served[1]).inputs["thing"].generate(np.random.default_rng(request.param))


@pytest.fixture
def expected(served: Served, payload: Payload) -> Prediction:
    return Predictor(Bundle.load(served[1])).predict([{"thing": payload}])[0]


def assert_same(answer: Any, expected: Prediction) -> None:
    assert answer["label"] == expected.label
    given = {each["label"]: each["probability"] for each in answer["probabilities"]}
    assert given == pytest.approx(expected.by_label(), abs=1e-6)


def as_text(payload: Payload) -> str:
    return payload if isinstance(payload, str) else json.dumps(payload)


def as_json(payload: Payload) -> Any:
    return base64.b64encode(payload).decode() if isinstance(payload, bytes) else payload


def test_forms_and_json(served: Served, payload: Payload, expected: Prediction) -> None:
    import httpx

    part = ("file", payload) if isinstance(payload, bytes) else (None, as_text(payload))
    value = as_json(payload)
    with httpx.Client(base_url=served[0]) as client:
        assert_same(client.post("/predict", files=[("thing", part)]).json(), expected)
        field = value if isinstance(payload, bytes) else as_text(payload)
        assert_same(client.post("/predict", data={"thing": field}).json(), expected)
        assert_same(client.post("/predict", json={"thing": value}).json(), expected)
        reply = client.post("/predict/batch", json={"samples": [{"thing": value}] * 2}).json()
        for answer in reply["results"]:
            assert_same(answer, expected)
        features = client.post("/embed", json={"thing": value}).json()
        assert list(features["features"]) == ["thing"]


def test_the_client(served: Served, payload: Payload, expected: Prediction) -> None:
    with Client(served[0]) as client:
        assert_same(client.predict(thing=payload).to_dict(), expected)  # type: ignore[arg-type]
        assert client.model().modalities["thing"].sent_as in ("file", "text", "numbers", "cells")


@pytest.mark.parametrize("command", ["predict", "ask"])
def test_the_commands(served: Served, payload: Payload, expected: Prediction, command: str, tmp_path: Path) -> None:
    url, bundle = served
    (tmp_path / "file").write_bytes(payload if isinstance(payload, bytes) else b"")
    value = str(tmp_path / "file") if isinstance(payload, bytes) else as_text(payload)
    target = ("--model", bundle) if command == "predict" else ("--url", url)
    assert_same(json.loads(run(command, *target, "--json", "--input", f"thing={value}").stdout), expected)
