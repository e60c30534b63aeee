"""The REST surface in one process: every subset, every bad input, limits, OpenAPI. No server, no torch."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import html
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import ConfigError
from mla_serve.fusion.novelty import QUANTILES, Reference, References
from mla_serve.fusion.rules import RULES
from mla_serve.inputs import INPUTS, Payload
from mla_serve.inputs.base import SentAs
from mla_serve.serve.answerer import Answerer
from mla_serve.serve.api import SAMPLE_PROBLEMS, create_app
from mla_serve.serve.http.body_limits import BodyLimit
from mla_serve.serve.http.guard import KeysFile
from mla_serve.serve.http.options import OPTIONS
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.problems import PROBLEM_KINDS, DeadlineExceeded, ProblemKind, to_problem
from mla_serve.serve.settings import Settings, load_settings, warn_of_unknown
from mla_serve.serve.workers.stopwatch import Stopwatch

PNG = b"\x89PNG\r\n\x1a\n"
Form = list[tuple[str, tuple[str | None, bytes]]]


@pytest.fixture(scope="module")
def settings(tiny_bundle: Path) -> Settings:
    return Settings(model=tiny_bundle, device="cpu", max_body_bytes=100_000, max_batch_body_bytes=200_000)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        yield client


def form(sample: dict[str, Payload], **options: str) -> Form:
    """Lay a sample out as the parts of a form, as curl -F does: files as files, the rest as fields."""
    parts: Form = []
    for name, payload in sample.items():
        if isinstance(payload, bytes):
            parts.append((name, (f"{name}.bin", payload)))
        else:
            parts.append((name, (None, (payload if isinstance(payload, str) else json.dumps(payload)).encode())))
    return parts + [(name, (None, value.encode())) for name, value in options.items()]


def as_json(sample: dict[str, Payload]) -> dict[str, Any]:
    return {
        name: base64.b64encode(payload).decode() if isinstance(payload, bytes) else payload
        for name, payload in sample.items()
    }


def listed(answer: dict[str, Any]) -> dict[str, float]:
    """Read the probabilities of a reply as {label: probability}."""
    return {each["label"]: each["probability"] for each in answer["probabilities"]}


def assert_problem(reply: Any, status: int, slug: str, field: str | None) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["type"] == f"/problems/{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 10
    assert problem.get("field") == field
    return problem


def test_every_subset_gets_the_predictors_own_answer(
    client: TestClient, predictor: Predictor, sample: dict[str, Payload], all_subsets: Any
) -> None:
    for names in all_subsets(list(sample)):
        part = {name: sample[name] for name in names}
        reply = client.post("/predict", files=form(part))
        assert reply.status_code == 200, reply.text
        answer, expected = reply.json(), predictor.predict([part])[0]
        assert answer["model"] == {"name": "tiny", "sha256": predictor.bundle.manifest.sha256}
        assert answer["label"] == expected.label
        assert listed(answer) == pytest.approx(expected.by_label(), abs=1e-6)
        assert sum(listed(answer).values()) == pytest.approx(1.0)
        assert set(answer["modalities"]) == set(names)
        assert sum(each["weight"] for each in answer["modalities"].values()) == pytest.approx(1.0)
        assert set(answer["missing"]) == set(sample) - set(names)


def test_an_unfamiliar_input_weighs_less_in_what_the_service_answers(
    client: TestClient, settings: Settings, sample: dict[str, Payload]
) -> None:
    wary = open_predictor(settings)
    width = wary.encode("vector", [wary.decode_one("vector", [0.0] * 4)]).shape[1]
    only_zeros = Reference("mahalanobis", np.zeros((1, width)), np.zeros(width), np.eye(width), QUANTILES)
    wary.bundle.references = References({"vector": only_zeros})
    wary.bundle.fusion = dataclasses.replace(wary.bundle.fusion, discounts={"vector": 1.0})
    asked: dict[str, Payload] = {"text": sample["text"], "vector": [3.0, -3.0, 3.0, -3.0]}
    trusting = client.post("/predict", files=form(asked)).json()
    with TestClient(create_app(wary, settings)) as cautious_client:
        one = cautious_client.post("/predict", files=form(asked)).json()
        many = cautious_client.post("/predict/batch", json={"samples": [as_json(asked)]}).json()["results"][0]
    expected = wary.predict([asked])[0]
    for cautious in (one, many):
        assert cautious["modalities"]["vector"]["unfamiliarity"] == 1.0
        assert cautious["modalities"]["vector"]["weight"] < 0.9 * trusting["modalities"]["vector"]["weight"]
        assert cautious["probability"] == pytest.approx(expected.probability, abs=1e-6)
        assert abs(cautious["probability"] - trusting["probability"]) > 0.01


def test_the_stages_of_a_request_are_timed_for_its_modalities_alone(
    client: TestClient, sample: dict[str, Payload]
) -> None:
    reply = client.post("/predict", files=form({"text": sample["text"]}))
    stages = [stage.partition(";dur=")[0] for stage in reply.headers["server-timing"].split(", ")]
    assert stages == ["queue", "decode-text", "encode-text", "fuse"]


def test_top_k_and_fusion_are_options(client: TestClient, sample: dict[str, Payload]) -> None:
    for rule in RULES:
        answer = client.post("/predict", files=form(sample, top_k="2", fusion=rule)).json()
        assert answer["fusion"] == rule
        values = [each["probability"] for each in answer["probabilities"]]
        assert len(values) == 2
        assert values == sorted(values, reverse=True)
        assert answer["probabilities"][0] == {"label": answer["label"], "probability": answer["probability"]}


@pytest.mark.parametrize("text", ["2024", "true", "null", '{"a":1}', '"quoted"', "[1, 2]", " spaced ", "ä\u202eש\n"])
def test_text_stays_as_it_was_sent(client: TestClient, predictor: Predictor, text: str) -> None:
    expected = predictor.predict([{"text": text}])[0]
    field = client.post("/predict", files=[("text", (None, text.encode()))]).json()
    file = client.post("/predict", files=[("text", ("text.txt", text.encode()))]).json()
    item = client.post("/predict/batch", json={"samples": [{"text": text}]}).json()["results"][0]
    for answer in (field, file, item):
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-6)


@pytest.mark.parametrize("given", ["[0.5, -1, 2e0, 3]", "0.5,-1,2,3", "0.5 -1 2 3"])
def test_a_vector_may_be_written_as_json_or_as_numbers(client: TestClient, predictor: Predictor, given: str) -> None:
    expected = predictor.predict([{"vector": [0.5, -1.0, 2.0, 3.0]}])[0]
    answer = client.post("/predict", files=[("vector", (None, given.encode()))]).json()
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-6)


BAD_FORMS: dict[str, tuple[Form, int, str, str]] = {
    "nothing": ([("top_k", (None, b"1"))], 400, "missing-input", "image"),
    "unknown field": ([("video", ("v.mp4", b"abc"))], 400, "unknown-field", "video"),
    "control characters in a name": ([("a\x1b[31m", (None, b"x"))], 400, "unknown-field", "a\x1b[31m"),
    "a path": ([("image", (None, b"/etc/passwd"))], 422, "invalid-input", "image"),
    "a URL": ([("audio", (None, b"http://127.0.0.1/x.wav"))], 422, "invalid-input", "audio"),
    "no image": ([("image", ("x.png", b"<html></html>"))], 415, "unsupported-format", "image"),
    "truncated image": ([("image", ("x.png", PNG))], 422, "invalid-input", "image"),
    "no audio": ([("audio", ("x.wav", PNG))], 415, "unsupported-format", "audio"),
    "empty file": ([("image", ("x.png", b""))], 422, "invalid-input", "image"),
    "nameless empty file": ([("audio", ("", b""))], 400, "missing-input", "image"),
    "empty text": ([("text", (None, b""))], 400, "missing-input", "image"),
    "blank text": ([("text", (None, b" \n"))], 422, "invalid-input", "text"),
    "text not UTF-8": ([("text", (None, b"\xff\xfe"))], 422, "invalid-input", "text"),
    "text file not UTF-8": ([("text", ("t.txt", b"caf\xe9"))], 422, "invalid-input", "text"),
    "short vector": ([("vector", (None, b"[1,2,3]"))], 422, "invalid-input", "vector"),
    "NaN vector": ([("vector", (None, b"1,2,3,nan"))], 422, "invalid-input", "vector"),
    "words as vector": ([("vector", (None, b"a b c d"))], 422, "invalid-input", "vector"),
    "repeated": ([("text", (None, b"a")), ("text", (None, b"b"))], 422, "invalid-input", "text"),
    "repeated as file": ([("text", (None, b"a")), ("text", ("t.txt", b"b"))], 422, "invalid-input", "text"),
    "file as option": ([("text", (None, b"a")), ("top_k", ("k", b"1"))], 422, "invalid-input", "top_k"),
    "blank option": ([("text", (None, b"a")), ("top_k", (None, b" "))], 422, "invalid-input", "top_k"),
    "top_k a word": ([("text", (None, b"a")), ("top_k", (None, b"two"))], 422, "invalid-input", "top_k"),
    "top_k zero": ([("text", (None, b"a")), ("top_k", (None, b"0"))], 422, "invalid-input", "top_k"),
    "top_k huge": ([("text", (None, b"a")), ("top_k", (None, b"9" * 5000))], 422, "invalid-input", "top_k"),
    "unknown rule": ([("text", (None, b"a")), ("fusion", (None, b"../x"))], 400, "unknown-field", "fusion"),
    "too large": ([("image", ("x.png", b"x" * 100_001))], 413, "too-large", "body"),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_a_bad_form_is_refused_with_its_field(client: TestClient, case: str) -> None:
    parts, status, slug, field = BAD_FORMS[case]
    assert_problem(client.post("/predict", files=parts), status, slug, field)


def test_embed_knows_no_options(client: TestClient) -> None:
    reply = client.post("/embed", files=[("text", (None, b"a")), ("top_k", (None, b"1"))])
    assert_problem(reply, 400, "unknown-field", "top_k")


MULTIPART = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "slug", "field"),
    [
        (b"text=hello", "text/plain", 415, "unsupported-format", "content-type"),
        (b'{"text": "a"}', "text/json", 415, "unsupported-format", "content-type"),
        (b"hello", None, 415, "unsupported-format", "content-type"),
        (b"", None, 400, "missing-input", "image"),
        (b"", "multipart/form-data", 400, "malformed-request", "content-type"),
        (b"", "multipart/form-data; boundary=" + "b" * 1000, 400, "malformed-request", "content-type"),
        (b"", MULTIPART, 400, "malformed-request", "body"),
        (b"hello", MULTIPART, 400, "malformed-request", "body"),
        (b"--b\r\n\r\nhello\r\n--b--\r\n", MULTIPART, 400, "malformed-request", "body"),
        (
            b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nhel',
            MULTIPART,
            400,
            "malformed-request",
            "body",
        ),
        (b"--b\r\n" + b"X: y\r\n" * 99 + b"\r\nhello\r\n--b--\r\n", MULTIPART, 400, "malformed-request", "body"),
        (b"--b\r\nX: " + b"y" * 9999 + b"\r\n\r\nhello\r\n--b--\r\n", MULTIPART, 400, "malformed-request", "body"),
    ],
)
def test_a_malformed_body_is_refused(
    client: TestClient, body: bytes, content_type: str | None, status: int, slug: str, field: str
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    problem = assert_problem(client.post("/predict", content=body, headers=headers), status, slug, field)
    if status == 415:
        assert "curl -F image=@" in problem["detail"]


def test_a_body_may_come_in_pieces_of_any_size(client: TestClient, sample: dict[str, Payload]) -> None:
    whole = client.post("/predict", files=form(sample))
    body, content_type = whole.request.read(), whole.request.headers["content-type"]
    replies = run_in_pieces(client.app, body, content_type, [1, 7, 4096])
    assert [json.loads(reply)["probability"] for reply in replies] == [whole.json()["probability"]] * 3


def run_in_pieces(app: Any, body: bytes, content_type: str, sizes: list[int]) -> list[bytes]:
    """Send one body to /predict in pieces of each size; return the replies' bodies."""

    async def send_all() -> list[bytes]:
        return [(await call(app, body, size, content_type))[1] for size in sizes]

    return asyncio.run(send_all())


async def call(app: Any, body: bytes, size: int, content_type: str) -> tuple[list[Message], bytes]:
    """Call an ASGI application with a chunked body; return what it sent, and the body of that."""

    async def pieces() -> AsyncIterator[Message]:
        for at in range(0, len(body), size):
            yield {"type": "http.request", "body": body[at : at + size], "more_body": at + size < len(body)}

    stream = pieces()
    sent: list[Message] = []

    async def receive() -> Message:
        if (message := await anext(stream, None)) is None:
            await asyncio.Event().wait()  # the client stays until it is answered
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/predict",
        "raw_path": b"/predict",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": [(b"content-type", content_type.encode()), (b"transfer-encoding", b"chunked")],
    }
    await app(scope, receive, send)
    return sent, b"".join(message.get("body", b"") for message in sent)


def test_a_chunked_body_is_cut_off_at_the_limit(client: TestClient) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    messages, body = asyncio.run(call(client.app, start + b"x" * 300_000, 50_000, MULTIPART))
    assert messages[0]["status"] == 413
    assert (b"connection", b"close") in messages[0]["headers"]
    assert [message.get("more_body", False) for message in messages[1:]] == [True, False]
    assert json.loads(body)["field"] == "body"


def test_the_body_limit_reads_no_further_than_the_limit() -> None:
    taken = []

    async def read_all(scope: Any, receive: Any, send: Any) -> None:
        while True:
            taken.append(await receive())

    with pytest.raises(Exception, match="at most 100 bytes"):
        asyncio.run(call(BodyLimit(read_all, 100, {}), b"x" * 1000, 30, MULTIPART))
    assert sum(len(message["body"]) for message in taken) <= 100


def test_a_client_that_leaves_is_no_error(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> list[Message]:
        async def gone() -> Message:
            return {"type": "http.disconnect"}

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "headers": [(b"content-type", MULTIPART.encode())],
        }
        await client.app({**scope, "query_string": b"", "root_path": ""}, gone, send)
        return sent

    assert asyncio.run(leave()) == []
    assert not caplog.records


def test_batch_gives_each_item_its_own_result(
    client: TestClient, predictor: Predictor, make_sample: Callable[[int], dict[str, Payload]]
) -> None:
    good = [make_sample(seed) for seed in range(3)]
    partial = {"audio": good[1]["audio"]}
    samples: list[Any] = [
        as_json(good[0]),
        {"image": "not base64!"},
        as_json(partial),
        {},
        {"video": "x"},
        "text",
        {"text": 2024},
        {"text": None},
        {"vector": "1 2 3 4"},
        {"vector": [1, 2, "3", 4]},
        {"vector": [1, 2, None, 4]},
        {"image": base64.b64encode(b"no image").decode()},
        {"image": ""},
        as_json(good[2]),
    ]
    reply = client.post("/predict/batch", json={"samples": samples, "top_k": 2, "fusion": "paper"})
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    problems = [result.get("problem") for result in results]
    assert [problem and (problem["status"], problem["field"]) for problem in problems] == [
        None,
        (422, "image"),
        None,
        (400, "image"),
        (400, "video"),
        (422, "samples"),
        (422, "text"),
        (400, "image"),
        (422, "vector"),
        (422, "vector"),
        (422, "vector"),
        (415, "image"),
        (400, "image"),
        None,
    ]
    for index, sample in ((0, good[0]), (2, partial), (13, good[2])):
        expected = predictor.predict([sample], rule="paper", top_k=2)[0]
        assert results[index]["label"] == expected.label
        assert listed(results[index]) == pytest.approx(expected.by_label(), abs=1e-6)
        assert sum(each["weight"] for each in results[index]["modalities"].values()) == pytest.approx(1.0)


def test_a_batch_of_bad_items_alone_is_answered(client: TestClient) -> None:
    results = client.post("/predict/batch", json={"samples": [{"video": "x"}, []]}).json()["results"]
    assert [result["problem"]["status"] for result in results] == [400, 422]


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        (b"", 400, "malformed-request", "body"),
        (b"{", 400, "malformed-request", "body"),
        (b"[" * 5000, 400, "malformed-request", "body"),
        (b'{"samples": [{"vector": [Infinity, 1, 2, 3]}]}', 400, "malformed-request", "body"),
        (rb'{"samples": [{"text": "\ud800"}]}', 400, "malformed-request", "body"),
        (b"[]", 400, "malformed-request", "body"),
        (b"{}", 400, "missing-input", "samples"),
        (b'{"samples": []}', 422, "invalid-input", "samples"),
        (b'{"samples": {"text": "a"}}', 422, "invalid-input", "samples"),
        (b'{"samples": [{"text": "a"}], "k": 1}', 400, "unknown-field", "k"),
        (b'{"samples": [{"text": "a"}], "top_k": true}', 422, "invalid-input", "top_k"),
        (b'{"samples": [{"text": "a"}], "top_k": -1}', 422, "invalid-input", "top_k"),
        (b'{"samples": [{"text": "a"}], "fusion": ["paper"]}', 422, "invalid-input", "fusion"),
        (b'{"samples": [{}], "fusion": "none"}', 400, "unknown-field", "fusion"),
        (b'{"samples": [' + b"{}," * 64 + b"{}]}", 413, "too-large", "samples"),
        (b" " * 200_001, 413, "too-large", "body"),
    ],
)
def test_a_bad_batch_is_refused(client: TestClient, body: bytes, status: int, slug: str, field: str) -> None:
    reply = client.post("/predict/batch", content=body, headers={"content-type": "application/json"})
    assert_problem(reply, status, slug, field)


def test_a_batch_must_be_json(client: TestClient) -> None:
    problem = assert_problem(
        client.post("/predict/batch", files=[("text", (None, b"a"))]), 415, "unsupported-format", "content-type"
    )
    assert "curl" in problem["detail"]


def test_embed_returns_each_encoders_features(
    client: TestClient, predictor: Predictor, sample: dict[str, Payload]
) -> None:
    answer = client.post("/embed", files=form(sample)).json()
    assert set(answer["features"]) == set(sample)
    for name, values in answer["features"].items():
        expected = predictor.encode(name, [predictor.decode_one(name, sample[name])])[0]
        np.testing.assert_allclose(values, expected, atol=1e-6)
    assert answer["model"]["name"] == "tiny"


def test_model_describes_every_modality(client: TestClient, predictor: Predictor) -> None:
    model = client.get("/model").json()
    assert (model["task"], model["classes"]) == ("classes", list(predictor.classes))
    assert {name: each["kind"] for name, each in model["modalities"].items()} == {
        "image": "image",
        "audio": "audio",
        "text": "text",
        "vector": "vector",
    }
    assert model["modalities"]["image"]["input"]["max_pixels"] == 1_000_000
    assert "PNG" in model["modalities"]["image"]["formats"]
    assert "tokenizer" not in model["modalities"]["text"]["input"]
    assert model["fusion"]["fitted"]["sharpness"] == 1.5
    assert model["providers"] == ["CPUExecutionProvider"]
    assert model["limits"]["body_bytes"] == 100_000


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nope"), ("POST", "/predict/"), ("GET", "/%0aevil"), ("PUT", "/x")]
)
def test_an_unknown_path_is_a_problem(client: TestClient, method: str, path: str) -> None:
    assert_problem(client.request(method, path), 404, "not-found", None)


def test_a_wrong_method_is_refused_with_the_right_one(client: TestClient) -> None:
    reply = client.get("/predict")
    assert "POST" in assert_problem(reply, 405, "method-not-allowed", None)["detail"]
    assert reply.headers["allow"] == "POST"


def test_openapi_lists_the_bundles_own_modalities(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert list(schema["properties"]) == ["image", "audio", "text", "vector", "top_k", "fusion", "coverage"]
    assert schema["properties"]["image"]["format"] == "binary"
    assert "format" not in schema["properties"]["text"]
    sample = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(sample["properties"]) == list(schema["properties"])
    assert sample["properties"]["image"]["contentEncoding"] == "base64"
    assert "anyOf" not in json.dumps([schema, sample])  # generators make classes without fields of it
    assert [each["name"] for each in document["paths"]["/predict"]["post"]["parameters"]] == list(OPTIONS)
    batch = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(batch["properties"]["samples"]["items"]["properties"]) == {"image", "audio", "text", "vector"}
    for path in ("/predict", "/predict/batch", "/embed"):
        answers = document["paths"][path]["post"]["responses"]
        assert set(answers) == {"200", *map(str, SAMPLE_PROBLEMS)}
        for status in answers:
            problem = answers[status]["content"].get("application/problem+json")
            assert (problem is None) == (status == "200")
            assert problem is None or problem["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_openapi_names_operations_and_types(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert [each["operationId"] for each in operations] == ["predict", "predict_batch", "embed", "model"]
    assert all(set(methods) <= {"get", "post"} for methods in document["paths"].values())
    answers = [each["responses"]["200"]["content"]["application/json"]["schema"]["$ref"] for each in operations]
    assert [each.rpartition("/")[2] for each in answers] == [
        "ClassPrediction",
        "BatchAnswer",
        "Embedding",
        "ModelDescription",
    ]
    described = document["components"]["schemas"]["ModelDescription"]["properties"]
    assert set(described) == set(client.get("/model").json())
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert "security" not in document


def test_openapi_asks_for_a_key_where_the_service_does(tiny_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-some-length")
    settings = Settings(model=tiny_bundle, device="cpu", api_keys_file=keys)
    with TestClient(create_app(open_predictor(settings), settings, KeysFile(keys))) as client:
        document = client.get("/openapi.json", headers={"Authorization": "Bearer a-key-of-some-length"}).json()
        assert document["security"] == [{"key": []}]
        # the page that explains the refusal needs no key
        problem = assert_problem(client.get("/openapi.json"), 401, "unauthorised", None)
        assert client.get(problem["type"]).status_code == 200


def test_head_is_answered_where_get_is(client: TestClient) -> None:
    for path in ("/", "/docs", "/model", "/openapi.json", "/samples", "/web/app.js", "/problems/too-large"):
        head, whole = client.head(path), client.get(path)
        assert head.status_code == 200, path
        assert head.headers == whole.headers, path
        wrong = client.put(path)
        assert_problem(wrong, 405, "method-not-allowed", None)
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}, path
    reply = client.head("/predict")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("kind", PROBLEM_KINDS.values(), ids=lambda kind: kind.slug)
def test_the_type_of_a_problem_is_a_page_that_explains_it(client: TestClient, kind: ProblemKind) -> None:
    page = client.get(kind.type)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for part in (kind.title, kind.explanation, str(kind.status)):
        assert html.escape(part) in page.text
    assert_problem(client.get(f"{kind.type}-x"), 404, "not-found", None)


def test_pages_of_other_origins_see_the_headers_that_clients_need(tiny_bundle: Path) -> None:
    settings = Settings(model=tiny_bundle, device="cpu", cors_origins="https://a.example")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        reply = client.post("/predict", json={"text": "a"}, headers={"Origin": "https://a.example"})
        exposed = {name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert {"x-request-id", "server-timing", "retry-after"} <= exposed


def test_openapi_refers_to_nothing_that_is_not_there(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for part in text.split('"$ref": "')[1:]:
        found: Any = document
        for key in part.partition('"')[0].removeprefix("#/").split("/"):
            found = found[key]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_a_bundle_with_other_modalities_has_other_fields(
    make_bundle: Callable[..., Path], tmp_path: Path, sample: dict[str, Payload]
) -> None:
    folder = make_bundle(tmp_path / "other", {"rear_camera": "image", "front_camera": "image"})
    settings = Settings(model=folder, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        image = sample["image"]
        assert isinstance(image, bytes)
        answer = client.post("/predict", files=[("rear_camera", ("x", image))]).json()
        assert answer["missing"] == ["front_camera"]
        problem = assert_problem(
            client.post("/predict", files=[("image", ("x", image))]), 400, "unknown-field", "image"
        )
        assert "rear_camera, front_camera" in problem["detail"]


def test_a_modality_may_not_bear_the_name_of_an_option(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    settings = Settings(model=make_bundle(tmp_path / "clash", {"fusion": "text"}), device="cpu")
    with pytest.raises(ConfigError, match="fusion"):
        create_app(open_predictor(settings), settings)


def test_the_operators_limits_take_the_place_of_the_bundles(tiny_bundle: Path, sample: dict[str, Payload]) -> None:
    settings = Settings(model=tiny_bundle, device="cpu", max_pixels=10, max_seconds=0.1, max_characters=3)
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        for name in ("image", "audio"):
            assert_problem(client.post("/predict", files=form({name: sample[name]})), 413, "too-large", name)
        long, cut = (client.post("/predict", files=form({"text": text})).json() for text in ("abcxyz", "abc"))
        assert long["probabilities"] == cut["probabilities"]
        assert client.get("/model").json()["modalities"]["audio"]["input"]["max_seconds"] == 0.1


def test_a_bug_is_logged_and_not_shown(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = open_predictor(settings)
    app = create_app(predictor, settings)
    monkeypatch.setattr(predictor, "decode_one", fail_with("secret\n2026 [ERROR] forged \x1b[31m"))
    with TestClient(app) as client:
        problem = assert_problem(client.post("/predict", files=[("text", (None, b"a"))]), 500, "internal-error", None)
        item = client.post("/predict/batch", json={"samples": [{"text": "a"}]}).json()["results"][0]
    assert "secret" not in json.dumps(problem)
    assert item["problem"] == problem
    logged = caplog.records[0].getMessage()
    assert logged.splitlines()[0].endswith(": RuntimeError")  # its message may be what a client sent
    assert "raise RuntimeError(message)" in logged
    assert "secret" not in caplog.text


def fail_with(message: str) -> Callable[..., Any]:
    def fail(*args: Any) -> Any:
        raise RuntimeError(message)

    return fail


def test_a_late_answer_is_dropped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings.model_copy(update={"request_timeout_s": 0.3})
    predictor = open_predictor(settings)
    started, answered, ended, ran = threading.Event(), threading.Event(), threading.Event(), []
    decode_one, predict = predictor.decode_one, Answerer.predict

    def decode_slowly(name: str, payload: Payload) -> Any:
        started.set()
        assert answered.wait(30)
        return decode_one(name, payload)

    def predict_and_tell(*args: Any) -> bytes:
        try:
            return predict(*args)
        finally:
            ended.set()

    app = create_app(predictor, settings)
    monkeypatch.setattr(predictor, "decode_one", decode_slowly)
    monkeypatch.setattr(predictor, "run_graphs", lambda *args: ran.append(args))
    monkeypatch.setattr(Answerer, "predict", predict_and_tell)
    with TestClient(app) as client:
        reply = client.post("/predict", files=[("text", (None, b"a"))])
        answered.set()
        assert_problem(reply, 504, "deadline-exceeded", None)
    if started.is_set():  # on a busy machine it may have been dropped before that
        assert ended.wait(30)
    assert not ran


def test_a_stopwatch_that_is_stopped_ends_the_work_at_its_next_stage() -> None:
    watch = Stopwatch()
    watch.lap("decode")
    watch.check()
    assert watch.header()["Server-Timing"].startswith("decode;dur=")
    watch.stop()
    for stage in (watch.check, lambda: watch.lap("decode")):
        with pytest.raises(DeadlineExceeded):
            stage()


def test_every_kind_of_input_declares_how_it_is_sent() -> None:
    for reader in INPUTS.values():
        assert reader.sent_as in get_args(SentAs)
        assert bool(reader.formats) == (reader.sent_as == "file")


def test_every_kind_of_problem_has_a_type_of_its_own() -> None:
    assert len({kind.type for kind in PROBLEM_KINDS.values()}) == len(PROBLEM_KINDS)
    assert to_problem(ConfigError("no")).status == 500


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLA_MODEL", "models/other")
    monkeypatch.setenv("MLA_WORKERS", "3")
    assert load_settings() == Settings(model=Path("models/other"), workers=3)
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(("name", "value"), [("WORKERS", "0"), ("DEVICE", "tpu"), ("MAX_SECONDS", "nan")])
def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MLA_{name}", value)
    with pytest.raises(ConfigError, match=f"^MLA_{name}='{value}': ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_a_misspelt_setting_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unknown({"MLA_WORKER": "2", "mla_model": "x", "PATH": "y"})
    assert [record.getMessage() for record in caplog.records] == [
        "the environment variable 'MLA_WORKER' is no setting and has no effect; did you mean MLA_WORKERS?"
    ]


def test_the_predictor_is_proved_right_before_it_serves(
    bundle_copy: Path, change_manifest: Callable[..., None]
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["golden"][0]["answer"] = [1.0, 0.0, 0.0]

    change_manifest(bundle_copy, edit)
    assert Bundle.load(bundle_copy)
    with pytest.raises(Exception, match="golden samples differ"):
        open_predictor(Settings(model=bundle_copy, device="cpu"))


def test_numbers_beyond_the_model_are_a_problem_and_not_an_answer(client: TestClient) -> None:
    huge = "3e38 3e38 3e38 3e38"
    for path in ("/predict", "/embed"):
        reply = client.post(path, files=[("vector", (None, huge)), ("text", (None, "abc"))])
        assert reply.status_code == 422
        assert reply.json()["type"] == "/problems/invalid-input"
        assert reply.json()["field"] == "vector"
    samples = [{"text": "a"}, {"text": "a", "vector": [3e38] * 4}, {"vector": [3e38] * 4}, {"text": "b"}]
    results = client.post("/predict/batch", json={"samples": samples}).json()["results"]
    assert ["problem" in result for result in results] == [False, True, True, False]
    assert results[1]["problem"]["field"] == results[2]["problem"]["field"] == "vector"
    alone = [client.post("/predict", files=[("text", (None, text))]).json() for text in "ab"]
    assert [results[0]["probability"], results[3]["probability"]] == pytest.approx(
        [each["probability"] for each in alone], abs=1e-6
    )
    only = client.post("/predict/batch", json={"samples": samples[1:3]}).json()["results"]
    assert all("problem" in result for result in only)
