"""The whole corpus against the API: each answer is a prediction or a problem of the 4xx kind."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mla_serve.bundle.manifest import Bundle
from mla_serve.errors import InputError
from mla_serve.inputs import INPUTS, AudioInput, ImageInput, TextInput
from mla_serve.serve.api import create_app
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings
from tests.hostile.corpus import Case, build, write
from tests.hostile.words import CELLS

# A worker ignores them as well (service.py): Pillow words them with numbers from the file.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
ANSWERS = {200, 400, 413, 415, 422}
CASES = build()
# what is empty, holds nothing but a byte order mark or has no cell that is there counts as not sent
NOTHING = (b"", b"\xef\xbb\xbf", *(CELLS[what] for what in ("nan", "all-null", "nothing")))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    folder = make_bundle(tmp_path_factory.mktemp("models") / "tiny", {kind: kind for kind in INPUTS})
    settings = Settings(model=folder, device="cpu", max_pixels=50_000_000, max_seconds=120.0)
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        yield client


def part(case: Case) -> list[Any]:
    if case.kind in ("image", "audio"):
        return [(case.kind, (case.filename, case.content))]
    return [(case.kind, (None, case.content))]


def check(case: Case, status: int, body: Any) -> None:
    assert status in ANSWERS, (case.name, status, body)
    if status == 200:
        values = [each["probability"] for each in body["probabilities"]]
        assert np.isfinite(values).all(), case.name
        assert sum(values) == pytest.approx(1.0)
    else:
        assert body["type"].startswith("/problems/"), case.name
        assert body["field"].partition(".")[0] in (case.kind, "body") or case.content in NOTHING, case.name
        assert body["detail"], case.name


def test_there_are_enough_of_them_and_they_differ(tmp_path: Path) -> None:
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    # libsndfile writes the time and random numbers into some
    assert [case for case in build() if case.kind != "audio"] == [case for case in CASES if case.kind != "audio"]
    assert write(tmp_path / "corpus") == len(list((tmp_path / "corpus").iterdir()))


def test_every_form_is_answered(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    for case in CASES:
        reply = client.post("/predict", files=part(case))
        check(case, reply.status_code, reply.json())
    assert not ours(caplog)


def test_every_batch_item_is_answered_and_its_neighbour_is_not_touched(client: TestClient) -> None:
    good = client.post("/predict", files=[("text", (None, b"abc"))]).json()
    for at in range(0, len(CASES), 16):
        cases = [case for case in CASES[at : at + 16] if can_be_json(case)]
        if not cases:
            continue
        samples = [item for case in cases for item in (as_json(case), {"text": "abc"})]
        reply = client.post("/predict/batch", content=json.dumps({"samples": samples}), headers=JSON)
        assert reply.status_code == 200, reply.text
        results = reply.json()["results"]
        for case, bad, neighbour in zip(cases, results[::2], results[1::2], strict=True):
            check(case, bad.get("problem", {}).get("status", 200), bad.get("problem", bad))
            assert neighbour["probability"] == pytest.approx(good["probability"], abs=1e-6), case.name


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what was logged, but for the client's requests and Pillow, which a worker keeps quiet."""
    return [record for record in caplog.records if not record.name.startswith(("httpx", "PIL"))]


JSON = {"Content-Type": "application/json"}


def can_be_json(case: Case) -> bool:
    if case.kind in ("image", "audio"):
        return True
    try:
        return case.kind == "text" and bool(case.content.decode())
    except UnicodeDecodeError:
        return False


def as_json(case: Case) -> dict[str, Any]:
    encoded = case.content.decode() if case.kind == "text" else base64.b64encode(case.content).decode()
    return {case.kind: encoded}


def test_file_names_and_headers_of_parts_reach_nothing(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """No client string becomes a path, a header or a log line."""
    for name in (b"../../../x", b"/etc/passwd", b'a\\"b', b"\xff\xfe", b"x" * 3000, b"%00", b"a;b=c", b"http://x/"):
        head = b'--b\r\nContent-Disposition: form-data; name="text"; filename="' + name + b'"\r\n'
        body = head + b"Content-Type: \x1b[31m\r\nX-Other: " + name + b"\r\n\r\nabc\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        reply = client.post("/predict", content=body, headers=headers)
        assert reply.status_code in (200, 400), name
    assert not ours(caplog)


def test_a_mix_of_good_and_bad_fields_names_the_bad_one(client: TestClient) -> None:
    bad = next(case for case in CASES if case.name == "image-empty")
    reply = client.post("/predict", files=[("text", (None, b"abc")), *part(bad)])
    assert reply.json()["field"] == "image"


@pytest.mark.slow
def test_no_decoder_takes_longer_than_two_seconds_of_processor_time(
    tiny_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    tokenizer = Bundle.load(tiny_bundle).read("tokenizer.json").decode()
    readers = {
        "image": ImageInput(64, 64),
        "audio": AudioInput(16_000, 16_000, 8_000),
        "text": TextInput(tokenizer, 64, transliterate=True),
        "vector": INPUTS["vector"](size=4),  # type: ignore[call-arg]
        "columns": Bundle.load(make_bundle(tmp_path / "columns", {"columns": "columns"})).inputs["columns"],
    }
    for case in CASES:
        payload: Any = case.content.decode(errors="replace") if case.kind == "text" else case.content
        start = time.thread_time()
        with contextlib.suppress(InputError):
            readers[case.kind].decode(payload, case.kind)
        assert time.thread_time() - start < 2, case.name
