"""The service over all tasks: replies are what the OpenAPI document says, and GET /model says what is predicted."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

from mla_serve.bundle import results
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import PREDICTIONS, Prediction
from mla_serve.fusion.rules import rules_for
from mla_serve.inputs import Payload
from mla_serve.serve.api import create_app
from mla_serve.serve.http import openapi
from mla_serve.serve.http.replies import ANSWER, CONDITION, FIELDS, SHARED, TASK_REPLIES
from mla_serve.serve.settings import Settings
from mla_serve.tasks import TASKS, Classes, Labels, Number, Task
from tests.conftest import rising_intervals

EXAMPLES: dict[str, Task] = {
    "classes": Classes(("red", "green", "blue")),
    "labels": Labels(("drama", "crime", "news", "war"), (0.5, 0.3, 0.6, 0.5)),
    "number": Number("price", "EUR", log=True, mean=3.0, deviation=2.0, decimals=0, low=1.0, high=900.0),
}


@pytest.fixture(scope="module", params=TASKS)
def predictor(request: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("tasks") / request.param
    return Predictor(Bundle.load(make_bundle(folder, task=EXAMPLES[request.param])))


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(create_app(predictor, Settings(device="cpu"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    content: dict[str, Any] = client.get("/openapi.json").json()
    return content


def as_json(sample: Mapping[str, Payload]) -> dict[str, Any]:
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in sample.items()
    }


def closed(schema: Any) -> Any:
    """Allow no member that a schema does not list."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return inner | (
        {"additionalProperties": False} if "properties" in schema and schema.get("type") == "object" else {}
    )


def check(document: dict[str, Any], name: str, reply: object) -> None:
    """Check a reply against a schema of the document; members that it does not list are errors."""
    schemas = closed(document["components"]["schemas"])
    jsonschema.validate(reply, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


def test_every_task_has_an_example_and_a_description() -> None:
    assert TASKS.keys() == EXAMPLES.keys() == PREDICTIONS.keys()
    assert set(TASKS.values()) == set(TASK_REPLIES)


def test_an_answer_is_what_the_document_says(
    client: TestClient, document: dict[str, Any], predictor: Predictor, all_subsets: Callable[..., Any]
) -> None:
    (sample, *_) = predictor.bundle.golden_samples()
    name = PREDICTIONS[predictor.task.name].__name__
    for names in all_subsets(predictor.names):
        reply = client.post("/predict", json=as_json({each: sample[each] for each in names})).json()
        check(document, name, reply)
        assert list(reply["modalities"]) == list(names)
        assert set(reply["missing"]) == set(predictor.names) - set(names)
        assert reply["model"] == {"name": predictor.bundle.manifest.name, "sha256": predictor.bundle.manifest.sha256}


def test_an_answer_is_the_predictors(client: TestClient, predictor: Predictor) -> None:
    for sample in predictor.bundle.golden_samples():
        reply = Prediction.from_dict(client.post("/predict", json=as_json(sample)).json())
        (expected,) = predictor.predict([sample])
        assert type(reply) is type(expected) is PREDICTIONS[predictor.task.name]
        assert reply.modalities == expected.modalities
        assert getattr(reply, reply.answer) == getattr(expected, expected.answer)


def test_a_batch_holds_the_same_answers_and_problems(
    client: TestClient, document: dict[str, Any], predictor: Predictor
) -> None:
    samples: list[Any] = [as_json(sample) for sample in predictor.bundle.golden_samples()]
    reply = client.post("/predict/batch", json={"samples": [*samples, {"text": 7}]}).json()
    check(document, "BatchAnswer", reply)
    assert "problem" in reply["results"].pop()
    for sample, result in zip(samples, reply["results"], strict=True):
        assert result.keys() == client.post("/predict", json=sample).json().keys()
        assert result["model"] == reply["model"]


def test_the_model_says_what_it_predicts(client: TestClient, document: dict[str, Any], predictor: Predictor) -> None:
    model = client.get("/model").json()
    check(document, "ModelDescription", model)
    assert model["task"] == predictor.task.name
    assert model["fusion"]["rules"] == list(rules_for(predictor.bundle.fusion))
    said = {
        "classes": ["red", "green", "blue"],
        "labels": [
            {"label": label, "threshold": threshold}
            for label, threshold in (("drama", 0.5), ("crime", 0.3), ("news", 0.6), ("war", 0.5))
        ],
        "number": {"column": "price", "unit": "EUR", "log": True, "decimals": 0, "low": 1.0, "high": 900.0},
    }
    empty: dict[str, Any] = {"classes": [], "labels": [], "number": None}
    expected = empty | {predictor.task.name: said[predictor.task.name]}
    assert {key: model[key] for key in empty} == expected


def test_every_rule_that_is_offered_answers_and_no_other(
    client: TestClient, document: dict[str, Any], predictor: Predictor
) -> None:
    parameters = {each["name"]: each for each in document["paths"]["/predict"]["post"]["parameters"]}
    offered = parameters["fusion"]["schema"]["enum"]
    assert offered == list(rules_for(predictor.bundle.fusion))
    (sample, *_) = predictor.bundle.golden_samples()
    for rule in offered:
        reply = client.post(f"/predict?fusion={rule}", json=as_json(sample))
        assert (reply.status_code, reply.json()["fusion"]) == (200, rule)
    if "energy" not in offered:
        refused = client.post("/predict?fusion=energy", json=as_json(sample))
        assert (refused.status_code, refused.json()["type"]) == (400, "/problems/unknown-field")
        assert offered[0] in refused.json()["detail"]


def test_a_number_has_no_labels_to_list(client: TestClient, document: dict[str, Any], predictor: Predictor) -> None:
    parameters = [each["name"] for each in document["paths"]["/predict"]["post"]["parameters"]]
    assert parameters == [*(["top_k"] if predictor.task.names else []), "fusion", "coverage"]
    reply = client.post("/predict", json={"text": "abc", "top_k": 1})
    if predictor.task.names:
        assert len(reply.json()["probabilities"]) == 1
    else:
        assert (reply.status_code, reply.json()["field"]) == (422, "top_k")


def test_the_document_describes_the_replies_of_this_task_only(document: dict[str, Any], predictor: Predictor) -> None:
    schemas = document["components"]["schemas"]
    own = PREDICTIONS[predictor.task.name].__name__
    assert {each.__name__ for each in PREDICTIONS.values()} & set(schemas) == {own}
    for name in FIELDS.keys() & schemas.keys():
        for field, schema in schemas[name]["properties"].items():
            assert schema["description"], (name, field)
        assert schemas[name]["required"] == list(schemas[name]["properties"])
    media = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    assert {*media["examples"]} >= {"sample", "alone", "fusion"}
    for example in media["examples"].values():
        check(document, own, example["value"])


def test_coverage_is_offered_with_its_condition(document: dict[str, Any]) -> None:
    parameters = {each["name"]: each for each in document["paths"]["/predict"]["post"]["parameters"]}
    assert CONDITION in parameters["coverage"]["description"]
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert CONDITION in body["properties"]["coverage"]["description"]
    promises = [document["components"]["schemas"].get(name) for name in ("PredictionSet", "Interval")]
    assert [CONDITION in each["properties"]["coverage"]["description"] for each in promises if each] == [True]


def test_a_coverage_gives_a_set_or_an_interval(
    make_bundle: Callable[..., Path], predictor: Predictor, tmp_path: Path
) -> None:
    task = predictor.task
    folder = make_bundle(tmp_path / "sets", task=task, intervals=rising_intervals(task, ["text"]))
    opened = Predictor(Bundle.load(folder))
    with TestClient(create_app(opened, Settings(device="cpu"))) as client:
        document = client.get("/openapi.json").json()
        assert client.get("/model").json()["coverage"]["calibrated"]["text"] > 0.9
        for sample, pooled in (({"text": "abc"}, False), ({"text": "abc", "vector": [1, 2, 3, 4]}, True)):
            without, promised = (client.post("/predict", json=sample | more).json() for more in ({}, {"coverage": 0.9}))
            check(document, PREDICTIONS[task.name].__name__, promised)
            (changed,) = (key for key in without if without[key] != promised[key])
            assert without[changed] is None
            assert (promised[changed]["coverage"], promised[changed]["rows"]) == (0.9, 99)
            assert promised[changed]["pooled"] == pooled
        refused = client.post("/predict?fusion=paper&coverage=0.9", json={"text": "abc"})
        assert (refused.status_code, refused.json()["field"]) == (422, "coverage")


def test_every_description_is_of_a_field() -> None:
    """A description of a field that no reply has would never be read."""
    classes = {name: getattr(results, name, None) or getattr(openapi, name) for name in FIELDS}
    fields = {name: {field.name for field in dataclasses.fields(each)} for name, each in classes.items()}
    assert not [(name, each) for name, own in fields.items() for each in set(FIELDS[name]) - set(ANSWER) - own]
    assert set(SHARED) <= set().union(*fields.values())


def test_a_number_is_answered_in_its_unit(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    predictor = Predictor(Bundle.load(make_bundle(tmp_path / "tiny", {"text": "text"}, task=EXAMPLES["number"])))
    with TestClient(create_app(predictor, Settings(device="cpu"))) as client:
        reply = client.post("/predict", json={"text": "abc"}).json()
    task = predictor.task
    assert isinstance(task, Number)
    outputs = predictor.run_graphs([predictor.decode({"text": "abc"})]).opinions[0].astype(np.float64)
    alone = task.answers(task.natural(outputs))
    assert reply["unit"] == "EUR"
    assert reply["modalities"]["text"]["deviation"] > 0
    assert np.sign(reply["modalities"]["text"]["influence"]) == np.sign(reply["value"] - np.exp(3.0))
    assert np.sign(np.log(reply["value"]) - 3.0) == np.sign(alone[0, 0])


def shown_replies() -> list[dict[str, Any]]:
    """Read the replies of /predict in the REST reference."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "rest.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    return [block for block in blocks if "modalities" in block]


@pytest.mark.parametrize("reply", shown_replies(), ids=lambda reply: next(iter(reply)))
def test_the_reference_shows_replies_as_they_are(reply: dict[str, Any]) -> None:
    restored = Prediction.from_dict(reply)
    assert json.dumps(restored.to_dict()) == json.dumps(reply)


def test_the_reference_shows_a_reply_of_each_task() -> None:
    shown = {type(Prediction.from_dict(reply)) for reply in shown_replies()}
    assert shown == set(PREDICTIONS.values())
