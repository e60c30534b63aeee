"""The client against the real application on a real socket, and against a scripted one for what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import rich
import soundfile
import uvicorn
from PIL import Image

from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.results import ClassPrediction, Prediction
from mla_serve.client import (
    AsyncClient,
    Busy,
    Client,
    InputError,
    MissingInput,
    NoAccess,
    NoAnswer,
    Retry,
    ServiceError,
    TimedOut,
    TooLarge,
    UnknownField,
    UnsupportedFormat,
)
from mla_serve.client.errors import from_response
from mla_serve.client.exchange import retry_after, to_part
from mla_serve.client.model import Modality, Model
from mla_serve.commands.ask import AskConfig
from mla_serve.commands.ask import run as ask
from mla_serve.inputs import INPUTS, Payload
from mla_serve.serve.api import create_app
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.problems import PROBLEM_KINDS, Problem
from mla_serve.serve.settings import Settings

REPLY = {
    "label": "7",
    "probability": 0.9,
    "probabilities": [{"label": "7", "probability": 0.9}, {"label": "1", "probability": 0.1}],
    "entropy": 0.3,
    "fusion": "calibrated",
    "modalities": {
        "text": {"weight": 1.0, "influence": 0.5, "entropy": 0.3, "label": "7", "probability": 0.9, "new": "later"}
    },
    "missing": ["image"],
    "model": {"name": "m", "sha256": "0" * 64},
    "something_newer": [1, 2],
}
PNG = b"\x89PNG"


@contextlib.contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serve a bundle; yield the address."""
    settings = Settings(model=bundle, device="cpu")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_app(open_predictor(settings), settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="module")
def url(tiny_bundle: Path) -> Iterator[str]:
    with served(tiny_bundle) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


class Script:
    """A service that gives the answers it was told, in turn; the last one from then on."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def client(self, **options: Any) -> Client:
        return Client(transport=httpx.MockTransport(self), sleep=self.waits.append, **options)

    def predict_by_asyncio(self, **options: Any) -> Prediction:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        async def predict() -> Prediction:
            async with AsyncClient(transport=httpx.MockTransport(self), sleep=sleep, **options) as client:
                return await client.predict(image=PNG)

        return asyncio.run(predict())


def problem(status: int, slug: str, detail: str = "this; do that", field: str | None = None, **headers: str) -> Any:
    content = Problem(f"/problems/{slug}", "Title", status, detail, field).to_dict()
    return httpx.Response(status, json=content, headers=headers)


def good() -> httpx.Response:
    return httpx.Response(200, json=REPLY)


# ---- against the real application


def test_every_subset_gets_the_predictors_own_answer(
    client: Client, predictor: Predictor, sample: dict[str, Payload], all_subsets: Any
) -> None:
    for names in all_subsets(list(sample)):
        part: dict[str, Any] = {name: sample[name] for name in names}
        answer, expected = client.predict(**part), predictor.predict([part])[0]
        assert answer.label == expected.label
        assert answer.by_label() == pytest.approx(expected.by_label(), abs=1e-6)
        assert set(answer.modalities) == set(names)
        assert answer.missing == expected.missing
        assert answer.model.sha256 == predictor.bundle.manifest.sha256
        assert isinstance(answer, Prediction)


def test_whatever_holds_an_image_may_be_sent(client: Client, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    values: list[Any] = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        bytearray((tmp_path / "a.png").read_bytes()),
        image,
        pixels,
        pixels[:, :, None],
        pixels / 255,
        pixels.astype(np.float32) / 255,
    ]
    answers = [client.predict(image=value).by_label() for value in values]
    assert all(answer == answers[0] for answer in answers)


def test_whatever_holds_a_sound_may_be_sent(client: Client, tmp_path: Path) -> None:
    samples = (np.random.default_rng(1).uniform(-0.5, 0.5, 700) * 32768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 1000)
    values: list[Any] = [
        tmp_path / "a.wav",
        str(tmp_path / "a.wav"),
        (tmp_path / "a.wav").read_bytes(),
        (samples, 1000),
        (samples / 32768, 1000),
        (np.stack([samples, samples], axis=1), 1000),
    ]
    answers = [client.predict(audio=value).by_label() for value in values]
    assert all(answer == pytest.approx(answers[0], abs=1e-6) for answer in answers)


def test_a_vector_may_be_a_list_or_an_array(client: Client) -> None:
    values: list[Any] = [[0.5, -1, 2, 3], (0.5, -1.0, 2.0, 3.0), np.array([0.5, -1, 2, 3]), "0.5 -1 2 3"]
    answers = [client.predict(vector=value).by_label() for value in values]
    assert all(answer == answers[0] for answer in answers)


def test_text_is_text_even_where_it_names_a_file(client: Client, predictor: Predictor) -> None:
    expected = predictor.predict([{"text": "pyproject.toml"}])[0]
    assert client.predict(text="pyproject.toml").by_label() == pytest.approx(expected.by_label(), abs=1e-6)


def test_options_reach_the_service(client: Client) -> None:
    answer = client.predict(text="seven", top_k=2, fusion="paper")
    assert len(answer.probabilities) == 2
    assert answer.fusion == "paper"


def test_none_means_missing(client: Client) -> None:
    assert set(client.predict(text="seven", image=None).modalities) == {"text"}
    with pytest.raises(MissingInput):
        client.predict(image=None)


def test_the_answers_of_every_task_are_those_of_the_predictor(
    task_bundle: Path, task_predictor: Predictor, sample: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = task_predictor.predict([sample])[0]
    with served(task_bundle) as url, Client(url) as client:
        answers = [client.predict(**sample), *client.predict_many([sample] * 2, concurrency=2)]
        answers.append(asyncio.run(ask_with_asyncio(url, sample)))
        ask(AskConfig(url=url, text="abc"))
        drawn = capsys.readouterr().out
        ask(AskConfig(url=url, text="abc", json=True))
        written = json.loads(capsys.readouterr().out)
    for answer in answers:
        assert dataclasses.replace(answer, model=None) == expected  # type: ignore[type-var]
        assert answer.model is not None
        assert answer.model.sha256 == task_predictor.bundle.manifest.sha256
    alone = Prediction.from_dict(written)
    assert dataclasses.replace(alone, model=None) == task_predictor.predict([{"text": "abc"}])[0]  # type: ignore[type-var]
    assert drawn.startswith(alone.drawing().answer)


async def ask_with_asyncio(url: str, sample: dict[str, Any]) -> Prediction:
    async with AsyncClient(url) as client:
        return (await client.predict_many([sample]))[0]


@pytest.mark.parametrize(
    ("described", "shown"),
    [
        ({"task": "classes", "classes": ["a", "b"]}, "answers 2 classes"),
        ({"classes": ["a", "b"]}, "answers 2 classes"),
        ({"task": "labels", "labels": [{"label": "a", "threshold": 0.3}]}, "answers any of 1 labels"),
        (
            {"task": "number", "number": {"column": "price", "unit": "EUR", "log": True, "decimals": 2}},
            "answers the number price in EUR",
        ),
        ({"task": "number", "number": {"column": "", "unit": "", "log": True, "decimals": 2}}, "answers the number"),
    ],
)
def test_the_description_of_a_model_says_what_it_answers(described: dict[str, Any], shown: str) -> None:
    rest = {"name": "m", "sha256": "0" * 64, "created": "", "modalities": {}}
    rest |= {"fusion": {}, "metrics": {}, "versions": {}, "limits": {}}
    model = Model.from_dict(rest | described)
    assert repr(model).endswith(f"{shown}>")
    assert model.task == described.get("task", "classes")


def test_the_model_and_the_features_are_typed(client: Client, predictor: Predictor, sample: dict[str, Any]) -> None:
    model = client.model()
    assert tuple(model.classes) == predictor.classes
    assert model.modalities["audio"].sent_as == "file"
    assert model.sha256[:12] in repr(model)
    features = client.embed(**sample)
    assert {name: len(values) for name, values in features.features.items()} == dict.fromkeys(sample, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "other"  # type: ignore[misc]


BAD: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"image": b"<html>"}, UnsupportedFormat, "image"),
    ({"video": b"abc"}, UnknownField, "video"),
    ({"video": "abc"}, UnknownField, "video"),
    ({"image": "no/such.png"}, InputError, "image"),
    ({"image": Path("no/such.png")}, InputError, "image"),
    ({"image": np.zeros((2, 3, 4, 5))}, InputError, "image"),
    ({"image": np.full((2, 2), 7.5)}, InputError, "image"),
    ({"image": np.full((2, 2), 256)}, InputError, "image"),
    ({"image": 7}, InputError, "image"),
    ({"audio": np.zeros(9)}, InputError, "audio"),
    ({"audio": (np.zeros((0,)), 8000)}, InputError, "audio"),
    ({"audio": (np.zeros(9), "8k")}, InputError, "audio"),
    ({"audio": (np.zeros(9, dtype=np.uint8), 8000)}, InputError, "audio"),
    ({"text": " "}, InputError, "text"),
    ({"text": b"\xff"}, InputError, "text"),
    ({"text": 7}, InputError, "text"),
    ({"vector": [1, 2]}, InputError, "vector"),
    ({"vector": ["a", "b", "c", "d"]}, InputError, "vector"),
    ({"text": "a", "top_k": 0}, InputError, "top_k"),
    ({"text": "a", "fusion": "none"}, UnknownField, "fusion"),
]


@pytest.mark.parametrize(("call", "error", "field"), BAD, ids=str)
def test_a_bad_input_names_its_field_and_says_what_to_do(
    client: Client, call: dict[str, Any], error: type[InputError], field: str
) -> None:
    with pytest.raises(error) as caught:
        client.predict(**call)
    assert caught.value.field == field
    assert 3 < len(caught.value.advice) < len(caught.value.message)


def test_many_come_back_in_order(client: Client, predictor: Predictor, make_sample: Any) -> None:
    samples = [make_sample(seed) for seed in range(20)]
    answers = client.predict_many(iter(samples), concurrency=4, top_k=1)
    expected = predictor.predict(samples)
    assert [answer.probability for answer in answers] == pytest.approx(
        [each.probability for each in expected], abs=1e-6
    )
    assert client.predict_many([]) == []


def test_many_may_return_their_errors(client: Client) -> None:
    samples: list[Any] = [{"text": "a"}, {"image": b"x"}, {"text": "b"}]
    results = client.predict_many(samples, on_error="return")
    assert [type(result) for result in results] == [ClassPrediction, UnsupportedFormat, ClassPrediction]
    with pytest.raises(UnsupportedFormat):
        client.predict_many(samples)


def test_asyncio_does_the_same(url: str, client: Client, make_sample: Any) -> None:
    samples = [make_sample(seed) for seed in range(6)]

    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(url) as other:
            many = await other.predict_many([*samples, {"image": b"x"}], on_error="return", progress=True)
            with pytest.raises(UnsupportedFormat):
                await other.predict_many([{"image": b"x"}])
            return many, await other.model(), await other.embed(text="a"), await other.ready()

    many, model, features, ready = asyncio.run(ask())
    assert many[:-1] == client.predict_many(samples)
    assert isinstance(many[-1], UnsupportedFormat)
    assert model == client.model()
    assert features == client.embed(text="a")
    assert ready is client.ready() is False  # /readyz is BentoML's, which is not there


def test_rows_of_a_frame_are_samples_and_empty_cells_are_missing(client: Client, url: str) -> None:
    frame = pd.DataFrame({"text": ["one", None, "three"], "vector": [[1, 2, 3, 4], [4, 3, 2, 1], np.nan]})
    records: list[Any] = frame.to_dict("records")
    answers = client.predict_many(records)
    assert [set(answer.modalities) for answer in answers] == [{"text", "vector"}, {"vector"}, {"text"}]

    async def ask() -> list[Prediction]:
        async with AsyncClient(url) as other:
            return await other.predict_many(row for row in records)

    assert asyncio.run(ask()) == answers


def test_a_row_without_anything_or_with_another_column_is_told(client: Client) -> None:
    rows: list[Any] = [{"text": np.nan, "vector": None}, {"text": "a", "title": np.nan}, {"text": "b", "title": "c"}]
    nothing, blank, unknown = client.predict_many(rows, on_error="return")
    assert isinstance(nothing, MissingInput)
    for error in (blank, unknown):
        assert isinstance(error, UnknownField)
        assert error.field == "title"
        assert "leave it out" in error.message


def test_a_frame_or_one_sample_in_place_of_many_is_told(client: Client) -> None:
    for samples in (pd.DataFrame({"text": ["a"]}), {"text": "a"}, ["a"]):
        with pytest.raises(InputError, match="to_dict"):
            client.predict_many(samples)  # type: ignore[arg-type]


def test_at_most_so_many_are_sent_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return good()

    with Client(transport=httpx.MockTransport(answer)) as client:
        client.predict_many([{"image": PNG}] * 20, concurrency=3)
    assert most == 3


# ---- another model on the same service


class Swapped:
    """A service whose model can be exchanged: {modality: kind}. It answers whatever it is asked, and counts."""

    def __init__(self, **kinds: str) -> None:
        self.kinds, self.version, self.asked, self.bodies = kinds, 0, 0, [b""]

    def swap(self, **kinds: str) -> None:
        self.kinds, self.version = kinds, self.version + 1

    def __call__(self, request: httpx.Request) -> httpx.Response:
        sha256 = f"{self.version:064}"
        if request.url.path == "/predict":
            self.bodies.append(request.read())
            return httpx.Response(200, json=REPLY | {"model": {"name": "m", "sha256": sha256}})
        self.asked += 1
        fields: dict[str, Any] = {"formats": [], "shape": [1], "input": {}}
        modalities = {n: {"kind": kind, "sent_as": INPUTS[kind].sent_as, **fields} for n, kind in self.kinds.items()}
        rest: dict[str, Any] = {key: {} for key in ("fusion", "metrics", "versions", "limits")}
        named = {"name": "m", "sha256": sha256, "created": "", "classes": ["1", "7"]}
        return httpx.Response(200, json=named | rest | {"modalities": modalities})


@pytest.fixture
def swapped() -> Iterator[tuple[Swapped, Client]]:
    service = Swapped(text="text")
    with Client(transport=httpx.MockTransport(service)) as client:
        for _ in range(3):
            client.predict(text="1 2")
        assert service.asked == 1
        yield service, client


def test_the_model_is_asked_for_again_when_another_one_has_answered(swapped: tuple[Swapped, Client]) -> None:
    service, client = swapped
    service.swap(text="vector")
    for _ in range(4):
        client.predict(text="1 2")
    assert service.asked == 2


def test_a_modality_that_came_with_a_new_model_can_be_sent_at_once(swapped: tuple[Swapped, Client]) -> None:
    service, client = swapped
    service.swap(title="text")
    assert client.predict(title="a").label == "7"
    with pytest.raises(UnknownField, match="title"):
        client.predict(text="a")


def test_a_value_that_fits_the_new_model_alone_can_be_sent_at_once(swapped: tuple[Swapped, Client]) -> None:
    service, client = swapped
    with pytest.raises(InputError, match="expected a text"):
        client.predict(text=[1, 2])
    service.swap(text="vector")
    assert client.predict(text=[1, 2]).label == "7"
    assert b"[1.0, 2.0]" in service.bodies[-1]


def test_an_open_file_is_read_once_even_where_the_model_is_asked_for_again(swapped: tuple[Swapped, Client]) -> None:
    service, client = swapped
    service.swap(text="text", image="image")
    client.predict(text="a", image=io.BytesIO(b"pixels"))
    assert b"pixels" in service.bodies[-1]


def test_a_refused_sample_lets_the_model_be_asked_for_again(swapped: tuple[Swapped, Client]) -> None:
    service, client = swapped
    refusals = iter([problem(422, "invalid-input", field="text")])
    client._http = httpx.Client(
        base_url="http://x", transport=httpx.MockTransport(lambda request: next(refusals, None) or service(request))
    )
    with pytest.raises(InputError):
        client.predict(text="a")
    client.predict(text="a")
    assert service.asked == 2


# ---- what goes wrong


Predict = Callable[[Script], Prediction]


def by_blocking(script: Script, **options: Any) -> Prediction:
    with script.client(**options) as client:
        return client.predict(image=PNG)


def by_asyncio(script: Script, **options: Any) -> Prediction:
    return script.predict_by_asyncio(**options)


both = pytest.mark.parametrize("predict", [by_blocking, by_asyncio])


@both
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again(predict: Any, status: int) -> None:
    script = Script(problem(status, "busy"), problem(status, "busy", **{"retry-after": "2"}), good())
    assert predict(script).label == "7"
    assert len(script.requests) == 3
    assert 0 <= script.waits[0] <= 0.25
    assert 2 <= script.waits[1] <= 2.5


@both
def test_a_service_that_stays_busy_is_left_alone(predict: Any) -> None:
    script = Script(problem(503, "busy", "no room; come back later"))
    with pytest.raises(Busy) as caught:
        predict(script, retry=Retry(times=2))
    assert len(script.requests) == 3
    assert (caught.value.status, caught.value.kind, caught.value.advice) == (503, "busy", "come back later")


@both
def test_a_service_that_wants_hours_is_not_waited_for(predict: Any) -> None:
    script = Script(problem(429, "busy", **{"retry-after": "7200"}))
    with pytest.raises(Busy) as caught:
        predict(script)
    assert caught.value.retry_after == 7200
    assert not script.waits


@both
def test_a_broken_connection_is_tried_again(predict: Any) -> None:
    assert predict(Script(httpx.ConnectError("refused"), httpx.ReadError("reset"), good())).label == "7"
    with pytest.raises(NoAnswer, match="refused"):
        predict(Script(httpx.ConnectError("refused")))


@both
def test_a_timeout_is_not_tried_again(predict: Any) -> None:
    script = Script(httpx.ReadTimeout("slow"))
    with pytest.raises(TimedOut):
        predict(script)
    assert len(script.requests) == 1


@both
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(401, "no-key"), NoAccess),
        (problem(403, "bad-key"), NoAccess),
        (problem(504, "deadline-exceeded"), TimedOut),
        (problem(500, "internal-error"), ServiceError),
        (httpx.Response(502, text="<html>proxy</html>"), ServiceError),
        (httpx.Response(200, text="<html>another service</html>"), ServiceError),
        (httpx.Response(200, json=[]), ServiceError),
        (httpx.Response(200, json={"label": "7"}), ServiceError),
        (httpx.Response(404, text="nothing here"), ServiceError),
        (httpx.Response(418, content=b"\x1b[31m\xff\0"), ServiceError),
    ],
)
def test_what_the_sample_is_not_to_blame_for(predict: Any, answer: httpx.Response, error: type[ServiceError]) -> None:
    script = Script(answer)
    with pytest.raises(error) as caught:
        predict(script)
    assert type(caught.value) is error
    assert caught.value.advice
    assert len(script.requests) == 1


@both
def test_a_page_of_a_proxy_is_told_in_words(predict: Any) -> None:
    page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\x1b[31m</body></html>\r\n"
    with pytest.raises(ServiceError, match=r"^502 Bad Gateway \(502 Bad Gateway \[31m\); is this address"):
        predict(Script(httpx.Response(502, text=page)))
    with pytest.raises(TooLarge, match="a proxy before the service"):
        predict(Script(httpx.Response(413, text=page)))


@both
def test_an_address_where_nothing_is_stands_in_the_error(predict: Any) -> None:
    with pytest.raises(ServiceError, match=r"http://host/nowhere/predict: this; do that"):
        predict(Script(problem(404, "not-found")), url="http://host/nowhere")


def test_every_problem_of_the_service_has_its_exception() -> None:
    for cls, kind in PROBLEM_KINDS.items():
        field = "image" if issubclass(cls, InputError) else None
        content = Problem(kind.type, kind.title, kind.status, "this; do that", field).to_dict()
        error = from_response(kind.status, httpx.Response(kind.status, json=content).content)
        assert isinstance(error, InputError if field else ServiceError), kind
        assert error.advice == "do that"
        if field:
            assert type(error).__name__ == cls.__name__ or type(error) is InputError


def test_waits_are_drawn_from_a_growing_range() -> None:
    retry = Retry(first=1.0, longest=5.0)
    assert [retry.wait(attempt, None, lambda: 1.0) for attempt in range(4)] == [1, 2, 4, 5]
    assert [retry.wait(attempt, 3.0, lambda: 0.0) for attempt in range(2)] == [3, 3]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=60.0) == seconds


@both
@pytest.mark.parametrize("key", ["secret", "secret\n", " secret\r\n"])
def test_the_key_goes_along(predict: Any, key: str) -> None:
    script = Script(good())
    predict(script, api_key=key)
    assert script.requests[0].headers["authorization"] == "Bearer secret"


@both
@pytest.mark.parametrize("key", ["se\ncret", "sécret", "se\0cret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(predict: Any, key: str) -> None:
    with pytest.raises(NoAccess) as caught:
        predict(Script(good()), api_key=key)
    assert "cret" not in str(caught.value)


@both
def test_a_service_that_moved_says_where_to(predict: Any) -> None:
    script = Script(httpx.Response(308, headers={"Location": "https://example.org/predict"}))
    with pytest.raises(NoAnswer, match=r"it is at https://example\.org/predict now; give"):
        predict(script)
    assert len(script.requests) == 1


@both
def test_an_answer_that_cannot_be_decompressed_is_no_answer(predict: Any) -> None:
    with pytest.raises(NoAnswer, match="no connection"):
        predict(Script(httpx.DecodingError("Error -3 while decompressing")))


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://host:1", "http://host:1/predict"),
        ("http://host:1/", "http://host:1/predict"),
        ("http://host/a/b", "http://host/a/b/predict"),
        ("http://host/a/b/", "http://host/a/b/predict"),
        (" http://host\n", "http://host/predict"),
    ],
)
def test_a_service_may_stand_behind_a_prefix(url: str, called: str) -> None:
    script = Script(good())
    with script.client(url=url) as client:
        client.predict(image=PNG)
    assert str(script.requests[0].url) == called


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url", ["http://[::1", "http://host:port", "http://host:99999999", "http://a..b", "http://\0", 7, None]
)
def test_what_is_no_address_is_refused(kind: Any, url: Any) -> None:
    with pytest.raises(NoAnswer, match="expected an address such as http://localhost:3000"):
        kind(url)


def test_a_password_in_the_address_is_not_shown() -> None:
    with Client("http://me:secret@127.0.0.1:9", retry=Retry(times=0)) as client, pytest.raises(NoAnswer) as caught:
        client.predict(image=PNG)
    assert "http://127.0.0.1:9/predict" in str(caught.value)
    with pytest.raises(NoAnswer) as refused:
        Client("http://me:secret@127.0.0.1:99999")
    assert "secret" not in f"{caught.value} {refused.value}"


@pytest.mark.parametrize("url", ["localhost:3000", "host", "", "ftp://host"])
def test_an_address_without_a_scheme_is_told(url: str) -> None:
    with Client(url, retry=Retry(times=0)) as client, pytest.raises(NoAnswer, match="check the address"):
        client.predict(image=PNG)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "gopher://host:1"), ("HTTP_PROXY", "http://[::1"), ("SSL_CERT_FILE", "/no/such.pem")],
)
def test_a_variable_that_httpx_cannot_use_is_told(
    kind: Any, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(NoAnswer, match=variable if variable == "SSL_CERT_FILE" else "HTTP_PROXY"):
        kind("http://localhost:3000")


def test_a_proxy_that_does_not_answer_is_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Client("http://localhost:3000", retry=Retry(times=0)) as client, pytest.raises(NoAnswer, match="HTTP_PROXY"):
        client.predict(image=PNG)


@both
def test_a_client_may_wait_for_ever(predict: Any) -> None:
    script = Script(good())
    predict(script, timeout=None)
    assert script.requests[0].extensions["timeout"] == {"connect": 5.0, "read": None, "write": None, "pool": None}


@pytest.mark.parametrize(
    "error",
    [
        InputError("text", "this; do that"),
        TooLarge("body", "x"),
        Busy("busy; wait", 503, "busy", 2.0),
        NoAnswer("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_sent_between_processes(error: InputError | ServiceError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# ---- results, imports


def test_a_newer_service_is_understood_and_shown() -> None:
    with Script(good()).client() as client:
        answer = client.predict(image=PNG)
    assert repr(answer) == "<ClassPrediction '7' 90.0%, weights: text 1.00, missing: image>"
    output = io.StringIO()
    rich.print(answer, file=output)
    assert "90.0%" in output.getvalue()
    assert "█" in output.getvalue()
    assert "missing: image" in output.getvalue()


def test_float_samples_survive_the_wav(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    _, (_, content) = to_part("audio", (samples, 8000), Modality("audio", "file", [], [], {}))
    read, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == 8000
    np.testing.assert_array_equal(read, samples)


BLOCKED = ("numpy", "PIL", "soundfile", "soxr", "onnxruntime", "pydantic", "tokenizers", "bentoml", "fastapi", "torch")
ALONE = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
import httpx
from mla_serve.client import Client
transport = httpx.MockTransport(lambda request: httpx.Response(200, json={REPLY!r}))
with Client(transport=transport) as client:
    print(client.predict(image=b"png"))
"""


def test_the_client_needs_nothing_of_the_server() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "'7' 90.0%" in done.stdout


def test_a_failing_iterator_ends_the_calls() -> None:
    def samples() -> Iterator[Any]:
        yield {"image": PNG}
        raise RuntimeError("the caller's own")

    with Script(good()).client() as client, pytest.raises(RuntimeError, match="own"):
        client.predict_many(samples())

    async def ask() -> None:
        script = Script(good())
        async with AsyncClient(transport=httpx.MockTransport(script)) as client:
            with pytest.raises(RuntimeError, match="own"):
                await client.predict_many(samples())
            ended = len(script.requests)
            await asyncio.sleep(0.05)
            assert len(script.requests) == ended == 1

    asyncio.run(ask())


def test_another_way_with_errors_is_refused() -> None:
    with Script(good()).client() as client, pytest.raises(ValueError, match="'raise', 'return'"):
        client.predict_many([{"image": PNG}], on_error="ignore")  # type: ignore[call-overload]


def test_a_number_at_once_below_one_is_refused() -> None:
    with Script(good()).client() as client, pytest.raises(ValueError, match="concurrency"):
        client.predict_many([{"image": PNG}], concurrency=0)
