"""A new kind of input is an `Input`, an encoder and a line for each: CONTRIBUTING.md promises no more than that.

Two made-up kinds go the whole way: `pair`, a text such as "0.5,-1", and `blob`, a file of two numbers.
tests/browser/test_new_kind.py has the page.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient
from torch import Tensor, nn

from mla_serve.bulk.score import Ask, Scorer
from mla_serve.bulk.slices import Slice
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.client import Client
from mla_serve.commands import evaluate, predict
from mla_serve.errors import InputError
from mla_serve.export.export_run import export_run
from mla_serve.inputs import INPUTS, Input
from mla_serve.serve.api import create_app
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders import ENCODERS, Encoder
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned
from tests.inputs.made_up import BlobInput, PairInput

CLASSES = ("left", "right")


class PairEncoder(Encoder):
    """One linear layer."""

    def __init__(self, spec: Input, width: int) -> None:
        super().__init__(spec, width)
        self.layer = nn.Linear(2, width)

    @classmethod
    def choose_input(cls, values: Sequence[str], config: TrainConfig) -> Input:
        return PairInput()

    def forward(self, windows: Tensor) -> Tensor:
        features: Tensor = self.layer(windows)
        return features


class BlobEncoder(PairEncoder):
    """The same for files."""

    @classmethod
    def choose_input(cls, values: Sequence[str], config: TrainConfig) -> Input:
        return BlobInput()


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Add the two lines of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INPUTS, "pair", PairInput)
        patch.setitem(INPUTS, "blob", BlobInput)
        patch.setitem(ENCODERS, "pair", {"small": PairEncoder})
        patch.setitem(ENCODERS, "blob", {"small": BlobEncoder})
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table in which both modalities tell the class by their signs."""
    folder = tmp_path_factory.mktemp("kinds") / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for split, rows in (("train", 40), ("val", 20), ("test", 20)):
        lines = []
        for number in range(rows):
            first, second = (generator.standard_normal(2) / 4 + (1 if number % 2 else -1)).round(3)
            (folder / f"{split}{number}.blob").write_bytes(struct.pack("<2f", first, second))
            row = {"label": CLASSES[number % 2], "point": f"{first},{second}", "scan": f"{split}{number}.blob"}
            if number % 5 == 3:
                del row["point" if number % 2 else "scan"]
            lines.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "dataset.json").write_text('{"modalities": {"point": "pair", "scan": "blob"}}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for one epoch, and export with golden samples from the table, so that there is a report that shows some."""
    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig(
        data=table, name="pairs", runs=folder / "runs", epochs=1, batch_size=8, width=8, augment="light", samples=True
    )
    run = train_as_planned(config, make_plan(config), lambda record: None)
    export_run(run.path, folder / "pairs", data=table)
    return folder / "pairs"


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[TestClient]:
    settings = Settings(model=bundle, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        yield client


SAMPLE = {"point": "1,1", "scan": struct.pack("<2f", 1, 1)}


@pytest.fixture(scope="module")
def probability(bundle: Path) -> float:
    return Predictor(Bundle.load(bundle)).predict([SAMPLE])[0].probability


def test_the_command_predicts(bundle: Path, tmp_path: Path, probability: float, capsys: Any) -> None:
    (tmp_path / "a.blob").write_bytes(struct.pack("<2f", 1, 1))
    given = ("point=1,1", f"scan={tmp_path / 'a.blob'}")
    predict.run(predict.PredictConfig(model=bundle, input=given, json=True))
    assert json.loads(capsys.readouterr().out)["probability"] == pytest.approx(probability)


def test_the_command_evaluates_also_where_a_kind_has_no_corruptions(bundle: Path, table: Path, capsys: Any) -> None:
    evaluate.run(evaluate.EvaluateConfig(bundle, table, draws=2, corruptions=True, json=True))
    results = json.loads(capsys.readouterr().out)
    assert set(results["conditions"]) >= {"full", "point", "scan"}
    assert results["corruptions"] == {}


def test_a_table_is_scored(bundle: Path, table: Path, probability: float) -> None:
    """In this process: a new one would not know the kinds."""
    (table / "one.blob").write_bytes(struct.pack("<2f", 1, 1))
    lines: list[Any] = [(1, {"point": "1,1", "scan": "one.blob"}), (2, {"point": "one"})]
    good, bad = Scorer(Ask(bundle, "calibrated", None), table).score(Slice(0, 0, lines)).to_pylist()
    assert good["probability"] == pytest.approx(probability)
    assert bad["error"] == "point: expected two numbers, got 'one'; send 0.5,-1"


def test_rest_reads_a_form_and_json(service: TestClient, probability: float) -> None:
    form = service.post("/predict", files={"point": (None, "1,1"), "scan": ("a.blob", SAMPLE["scan"])})
    encoded = SAMPLE | {"scan": base64.b64encode(struct.pack("<2f", 1, 1)).decode()}
    for reply in (form, service.post("/predict", json=encoded)):
        assert reply.status_code == 200, reply.text
        assert reply.json()["probability"] == pytest.approx(probability)
    refused = service.post("/predict", json={"point": "one"})
    assert (refused.status_code, refused.json()["field"]) == (422, "point")


def test_rest_describes_the_kinds(service: TestClient) -> None:
    modalities = service.get("/model").json()["modalities"]
    assert {name: one["sent_as"] for name, one in modalities.items()} == {"point": "text", "scan": "file"}
    form = service.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
    fields = form["multipart/form-data"]["schema"]["properties"]
    assert fields["scan"]["format"] == "binary"
    assert [len(sample) for sample in service.get("/samples").json()] == [2, 2]


def test_the_client_sends_values_and_paths(service: TestClient, tmp_path: Path, probability: float) -> None:
    (tmp_path / "a.blob").write_bytes(struct.pack("<2f", 1, 1))
    transport = httpx.MockTransport(lambda request: _pass_on(request, service))
    with Client("http://testserver", transport=transport) as client:
        answer = client.predict(point="1,1", scan=tmp_path / "a.blob")
        with pytest.raises(InputError, match="expected a text, got a list; send a str"):
            client.predict(point=[1, 1])
    assert answer.probability == pytest.approx(probability)


def _pass_on(request: httpx.Request, service: TestClient) -> httpx.Response:
    reply = service.request(request.method, request.url.path, content=request.read(), headers=dict(request.headers))
    return httpx.Response(reply.status_code, json=reply.json())


def test_the_report_shows_the_payloads_of_wrong_answers(bundle: Path) -> None:
    page = (bundle / "report.html").read_text(encoding="utf-8")
    wrong = json.loads((bundle / "report.json").read_text(encoding="utf-8"))["wrongest"]
    assert wrong, "after one epoch of 40 rows some answers are wrong; without any, nothing would be tested here"
    assert ("<blockquote>" in page) or ("8 bytes, cannot be shown" in page)
