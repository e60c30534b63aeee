"""The client against the real application on a real socket, and against a scripted one for what goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import io
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
import pytest
import rich
import soundfile
import uvicorn
from PIL import Image

from mla_serve.client import (
    Answer,
    AsyncClient,
    Busy,
    Client,
    InputError,
    MissingInput,
    NoAccess,
    NoAnswer,
    ServiceError,
    TimedOut,
    UnknownField,
    UnsupportedFormat,
)
from mla_serve.client.errors import from_response
from mla_serve.client.exchange import Retry, retry_after
from mla_serve.client.payloads import to_part
from mla_serve.inputs import Payload
from mla_serve.predictor import Predictor
from mla_serve.results import Prediction
from mla_serve.serve.api import create_app
from mla_serve.serve.model import open_predictor
from mla_serve.serve.problems import KINDS, Problem
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


@pytest.fixture(scope="module")
def url(tiny_bundle: Path) -> Iterator[str]:
    settings = Settings(model=tiny_bundle, device="cpu")
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

    def predict_by_asyncio(self, **options: Any) -> Answer:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        async def predict() -> Answer:
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


def test_the_model_and_the_features_are_typed(client: Client, predictor: Predictor, sample: dict[str, Any]) -> None:
    model = client.model()
    assert model.classes == predictor.classes
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
    ({"image": np.zeros((2, 2), dtype=np.int64)}, InputError, "image"),
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
    assert [type(result) for result in results] == [Answer, UnsupportedFormat, Answer]
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


# ---- what goes wrong


Predict = Callable[[Script], Answer]


def by_blocking(script: Script, **options: Any) -> Answer:
    with script.client(**options) as client:
        return client.predict(image=PNG)


def by_asyncio(script: Script, **options: Any) -> Answer:
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
    ],
)
def test_what_the_sample_is_not_to_blame_for(predict: Any, answer: httpx.Response, error: type[ServiceError]) -> None:
    script = Script(answer)
    with pytest.raises(error) as caught:
        predict(script)
    assert type(caught.value) is error
    assert caught.value.advice
    assert len(script.requests) == 1


def test_every_problem_of_the_service_has_its_exception() -> None:
    for cls, kind in KINDS.items():
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
def test_the_key_goes_along(predict: Any) -> None:
    script = Script(good())
    predict(script, api_key="secret")
    assert script.requests[0].headers["authorization"] == "Bearer secret"


# ---- results, imports


def test_a_newer_service_is_understood_and_shown() -> None:
    with Script(good()).client() as client:
        answer = client.predict(image=PNG)
    assert repr(answer) == "<Answer '7' 90.0%, weights: text 1.00, missing: image>"
    output = io.StringIO()
    rich.print(answer, file=output)
    assert "90.0%" in output.getvalue()
    assert "█" in output.getvalue()
    assert "missing: image" in output.getvalue()


def test_float_samples_survive_the_wav(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    _, (_, content) = to_part("audio", (samples, 8000), "audio")
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


def test_a_number_at_once_below_one_is_refused() -> None:
    with Script(good()).client() as client, pytest.raises(ValueError, match="concurrency"):
        client.predict_many([{"image": PNG}], concurrency=0)
