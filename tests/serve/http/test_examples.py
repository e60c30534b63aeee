"""The examples in the OpenAPI document: they can be sent as they stand, and the model answers what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.fusion.rules import MEANINGS, RULES, rules_for
from mla_serve.serve.api import create_app
from mla_serve.serve.http.examples import MOST_BYTES, examples
from mla_serve.serve.problems import PROBLEM_KINDS
from mla_serve.serve.settings import Settings

JSON = "application/json"


@pytest.fixture(scope="module")
def client(task_predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(create_app(task_predictor, Settings(device="cpu"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    content: dict[str, Any] = client.get("/openapi.json").json()
    return content


def assert_alike(got: Any, shown: Any) -> None:
    """Check that two replies differ in the last digits of numbers only."""
    if isinstance(shown, dict):
        assert got.keys() == shown.keys()
        for name in shown:
            assert_alike(got[name], shown[name])
    elif isinstance(shown, list):
        for each, other in zip(got, shown, strict=True):
            assert_alike(each, other)
    else:
        assert got == (pytest.approx(shown, rel=1e-3) if isinstance(shown, float) else shown)


def test_every_example_is_answered_as_the_document_says(client: TestClient, document: dict[str, Any]) -> None:
    seen = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            body = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
            answers = operation["responses"]["200"]["content"][JSON].get("examples", {})
            for name, example in body.get("examples", {}).items():
                jsonschema.validate(example["value"], body["schema"])
                reply = client.post(path, json=example["value"])
                assert reply.status_code == 200, (path, name, reply.text)
                if path != "/embed":  # its numbers are too many for an example
                    assert_alike(reply.json(), answers[name]["value"])
                seen.append((path, name))
    options = ["fusion", "coverage"] if "top_k" not in str(document["paths"]["/predict"]["post"]["parameters"]) else []
    wanted = ["sample", "alone", *(options or ["top_k", "fusion", "coverage"])]
    assert seen == [*(("/predict", name) for name in wanted), ("/predict/batch", "samples"), ("/embed", "sample")]


def test_an_example_holds_what_is_short_of_a_sample(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    predictor = Predictor(Bundle.load(make_bundle(tmp_path / "tiny", {"text": "text", "audio": "audio"})))
    (sample, *_) = predictor.bundle.golden_samples()
    long = {"audio": sample["audio"], "text": "many words " * MOST_BYTES}
    predictor.bundle.golden_samples = lambda: [{"text": "a"}, long]  # type: ignore[method-assign]
    (first, *_) = examples(predictor, "shortlist")
    assert set(first.request) == {"text"}
    assert MOST_BYTES - 20 < len(first.request["text"]) <= MOST_BYTES
    assert first.request["text"].startswith("many words many")
    assert first.answer["missing"] == ["audio"]
    predictor.bundle.golden_samples = lambda: [{"audio": sample["audio"]}]  # type: ignore[method-assign]
    (first, *_) = examples(predictor, "shortlist")
    assert first.request == {}
    assert list(first.answer["modalities"]) == ["audio"]


def test_a_model_whose_samples_are_beyond_the_limits_has_no_examples(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    predictor = Predictor(Bundle.load(make_bundle(tmp_path / "tiny", {"image": "image"})))
    settings = Settings(device="cpu", max_pixels=1)
    predictor.bundle.inputs = {name: settings.with_limits(each) for name, each in predictor.bundle.inputs.items()}
    with TestClient(create_app(predictor, settings)) as client:
        predict = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert "examples" not in predict["requestBody"]["content"][JSON]
    assert "examples" not in predict["responses"]["200"]["content"][JSON]


def test_every_rule_is_explained(document: dict[str, Any], task_predictor: Predictor) -> None:
    assert list(MEANINGS) == list(RULES)
    assert all(meaning[0].isupper() and meaning.endswith(".") for meaning in MEANINGS.values())
    parameters = {each["name"]: each["schema"] for each in document["paths"]["/predict"]["post"]["parameters"]}
    assert list(parameters["fusion"]["x-enumDescriptions"]) == list(rules_for(task_predictor.bundle.fusion))
    assert task_predictor.bundle.fusion.native in parameters["fusion"]["x-enumDescriptions"]["native"]


def test_every_problem_has_an_example_and_a_page(client: TestClient, document: dict[str, Any]) -> None:
    shown = document["components"]["examples"]
    assert list(shown) == [kind.slug for kind in PROBLEM_KINDS.values()]
    for kind in PROBLEM_KINDS.values():
        problem = shown[kind.slug]["value"]
        assert (problem["status"], problem["title"]) == (kind.status, kind.title)
        assert client.get(problem["type"]).status_code == 200
        jsonschema.validate(problem, document["components"]["schemas"]["Problem"])


def test_operations_are_grouped(document: dict[str, Any]) -> None:
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    groups = [tag["name"] for tag in document["tags"]]
    assert [each["tags"] for each in operations] == [[groups[0]]] * 3 + [[groups[1]]]
    assert all(tag["description"].endswith(".") for tag in document["tags"])
