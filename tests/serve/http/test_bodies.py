"""What clients send, in every spelling: each body gets the predictor's own answer, or a problem that names the field."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import InputError
from mla_serve.inputs import Payload, VectorInput
from mla_serve.serve.api import create_app
from mla_serve.serve.http.content_type import ContentType
from mla_serve.serve.http.json_body import parse_object
from mla_serve.serve.http.options import merge_options, parse_number_options
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings

JSON = {"Content-Type": "application/json"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
PATHS = ("/predict", "/embed")
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[TestClient]:
    settings = Settings(model=tiny_bundle, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        yield client


def part(content: bytes, disposition: str = 'name="text"', *headers: str) -> bytes:
    """Write one part of a form with boundary b."""
    lines = "".join(f"{line}\r\n" for line in (f"Content-Disposition: form-data; {disposition}", *headers))
    return b"--b\r\n" + lines.encode() + b"\r\n" + content + b"\r\n"


def send(client: TestClient, *parts: bytes, path: str = "/predict") -> Any:
    return client.post(path, content=b"".join(parts) + b"--b--\r\n", headers=MULTIPART)


def assert_answers(reply: Any, predictor: Predictor, **sample: Payload) -> None:
    """The answer is the predictor's own to this sample."""
    assert reply.status_code == 200, reply.text
    answer, expected = reply.json(), predictor.predict([sample])[0]
    assert set(answer["modalities"]) == set(sample)
    assert answer["label"] == expected.label
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-6)


def assert_problem(reply: Any, status: int, slug: str, field: str) -> str:
    assert (reply.status_code, reply.json()["type"], reply.json().get("field")) == (
        status,
        f"/problems/{slug}",
        field,
    ), reply.text
    return str(reply.json()["detail"])


def as_base64(content: Payload) -> str:
    assert isinstance(content, bytes)
    return base64.b64encode(content).decode()


# What is empty was not sent.

EMPTY = {
    "a file field of a page": part(b"", 'name="image"; filename=""', "Content-Type: application/octet-stream"),
    "Swagger UI's empty value": part(b"", 'name="image"'),
    "a text field of a page": part(b"", 'name="vector"'),
    "an option": part(b"", 'name="top_k"') + part(b"", 'name="fusion"') + part(b"", 'name="coverage"'),
    "null in JSON": part(b"null", 'name="vector"', "Content-Type: application/json"),
    "an empty string in JSON": part(b'""', 'name="vector"', "Content-Type: application/json"),
    "twice": part(b"", 'name="vector"') * 2,
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_field_was_not_sent(client: TestClient, predictor: Predictor, case: str) -> None:
    assert_answers(send(client, EMPTY[case], part(b"abc")), predictor, text="abc")
    assert_answers(send(client, part(b"abc"), EMPTY[case]), predictor, text="abc")
    assert "at least one of image, audio, text, vector" in assert_problem(
        send(client, EMPTY[case]), 400, "missing-input", "image"
    )


def test_a_page_with_every_field_empty_but_one(client: TestClient, predictor: Predictor) -> None:
    empty = [part(b"", f'name="{name}"; filename=""') for name in ("image", "audio")]
    options = [part(b"", f'name="{name}"') for name in ("vector", "top_k", "fusion", "coverage")]
    assert_answers(send(client, *empty, part(b"abc"), *options), predictor, text="abc")


def test_a_file_that_has_a_name_and_no_content_is_a_mistake(client: TestClient) -> None:
    for name in ("image", "text"):
        reply = send(client, part(b"", f'name="{name}"; filename="a.png"'))
        assert "empty" in assert_problem(reply, 422, "invalid-input", name)


def test_endless_empty_parts_are_not_read(client: TestClient) -> None:
    for path in PATHS:
        assert_problem(send(client, part(b"") * 5_000, path=path), 400, "malformed-request", "body")
        reply = client.post(path, content=b"text=&" * 5_000, headers=URLENCODED)
        assert_problem(reply, 400, "malformed-request", "body")


# Parts of a form.


@pytest.mark.parametrize(
    "disposition",
    [
        'name="image"; filename="x.png"',
        "name=\"image\"; filename*=UTF-8''x%20y.png",
        "filename*=UTF-8''x; name=\"image\"",
        'name=image; filename="a\\"b; c.png"',
        'name="image"; filename=""',
        'name="image"; filename="C:\\x.png"',
    ],
)
def test_a_file_is_a_file_in_every_spelling(
    client: TestClient, predictor: Predictor, sample: dict[str, Any], disposition: str
) -> None:
    assert_answers(send(client, part(sample["image"], disposition)), predictor, image=sample["image"])


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/json", "text/html; charset=no"])
def test_the_format_of_a_file_is_read_from_its_content_not_its_type(
    client: TestClient, predictor: Predictor, sample: dict[str, Any], kind: str
) -> None:
    reply = send(client, part(sample["image"], 'name="image"; filename="x"', f"Content-Type: {kind}"))
    assert_answers(reply, predictor, image=sample["image"])


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "image/png; charset=binary"])
def test_a_part_whose_type_is_that_of_a_file_needs_no_filename(
    client: TestClient, predictor: Predictor, sample: dict[str, Any], kind: str
) -> None:
    reply = send(client, part(sample["image"], 'name="image"', f"Content-Type: {kind}"))
    assert_answers(reply, predictor, image=sample["image"])


@pytest.mark.parametrize("given", [b'"caf\\u00e9 \\"x\\""', ' \n"café \\"x\\""'.encode()])
def test_a_text_marked_as_json_is_its_string(client: TestClient, predictor: Predictor, given: bytes) -> None:
    for kind in ("application/json", "application/json; charset=utf-8", "Application/vnd.x+JSON"):
        for disposition in ('name="text"', 'name="text"; filename="blob"'):
            reply = send(client, part(given, disposition, f"Content-Type: {kind}"))
            assert_answers(reply, predictor, text='café "x"')


@pytest.mark.parametrize("given", ["abc", '"abc', '"abc" d', "2024", "true", '{"a": 1}', "[1, 2]"])
def test_a_text_marked_as_json_that_is_no_string_is_a_text(
    client: TestClient, predictor: Predictor, given: str
) -> None:
    reply = send(client, part(given.encode(), 'name="text"', "Content-Type: application/json"))
    assert_answers(reply, predictor, text=given)


def test_options_and_vectors_may_be_marked_as_json(client: TestClient, predictor: Predictor) -> None:
    marked = "Content-Type: application/json"
    parts = [part(b"[0.5, -1, 2, 3]", 'name="vector"', marked)]
    parts += [part(b"2", 'name="top_k"; filename="blob"', marked), part(b'"paper"', 'name="fusion"', marked)]
    answer = send(client, *parts).json()
    assert (len(answer["probabilities"]), answer["fusion"]) == (2, "paper")
    assert set(answer["modalities"]) == {"vector"}


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("iso-8859-1", "latin-1"), ("UTF-16", "utf-16"), ("windows-1252", "cp1252"), ('"utf-8"', "utf-8")],
)
def test_a_text_is_read_in_the_character_set_that_it_names(
    client: TestClient, predictor: Predictor, charset: str, codec: str
) -> None:
    reply = send(client, part("café".encode(codec), 'name="text"', f"Content-Type: text/plain; charset={charset}"))
    assert_answers(reply, predictor, text="café")


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=UTF-8", "text/plain; charset=utf8"])
def test_a_byte_order_mark_is_no_part_of_a_text(client: TestClient, predictor: Predictor, kind: str) -> None:
    for disposition in ('name="text"', 'name="text"; filename="t.txt"'):
        reply = send(client, part(b"\xef\xbb\xbfabc", disposition, f"Content-Type: {kind}"))
        assert_answers(reply, predictor, text="abc")


@pytest.mark.parametrize("charset", ["unicode_escape", "idna", "rot13", "x-own", "utf-7", "hex", "utf16le", "iso88591"])
def test_other_character_sets_are_refused(client: TestClient, charset: str) -> None:
    reply = send(client, part(b"abc", 'name="text"', f"Content-Type: text/plain; charset={charset}"))
    assert charset in assert_problem(reply, 415, "unsupported-format", "text")
    reply = client.post(
        "/predict", content=b'{"text": "a"}', headers={"Content-Type": f"application/json; charset={charset}"}
    )
    assert_problem(reply, 415, "unsupported-format", "content-type")


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "binary", "Binary", ""])
def test_a_transfer_encoding_that_changes_nothing_is_passed_over(
    client: TestClient, predictor: Predictor, sample: dict[str, Any], encoding: str
) -> None:
    header = f"Content-Transfer-Encoding: {encoding}"
    assert_answers(send(client, part(b"abc", 'name="text"', header)), predictor, text="abc")
    reply = send(client, part(sample["image"], 'name="image"; filename="x"', header))
    assert_answers(reply, predictor, image=sample["image"])


def test_transfer_encodings_are_decoded(client: TestClient, predictor: Predictor, sample: dict[str, Any]) -> None:
    lines = base64.encodebytes(sample["image"])
    for disposition in ('name="image"; filename="x"', 'name="image"'):
        reply = send(client, part(lines, disposition, "Content-Transfer-Encoding: BASE64"))
        assert_answers(reply, predictor, image=sample["image"])
    reply = send(client, part(b"caf=C3=A9 =3D =\r\nx", 'name="text"', "Content-Transfer-Encoding: quoted-printable"))
    assert_answers(reply, predictor, text="café = x")


@pytest.mark.parametrize("encoding", ["gzip", "x-uuencode", "base32"])
def test_another_transfer_encoding_is_refused(client: TestClient, encoding: str) -> None:
    reply = send(client, part(b"abc", 'name="text"', f"Content-Transfer-Encoding: {encoding}"))
    assert encoding in assert_problem(reply, 415, "unsupported-format", "text")


def test_a_damaged_transfer_encoding_is_refused(client: TestClient) -> None:
    reply = send(client, part(b"a?b", 'name="image"; filename="x"', "Content-Transfer-Encoding: base64"))
    assert "base64" in assert_problem(reply, 422, "invalid-input", "image")


def test_a_data_url_in_a_form_is_a_file(client: TestClient, predictor: Predictor, sample: dict[str, Any]) -> None:
    url = "data:image/png;base64," + as_base64(sample["image"])
    assert_answers(send(client, part(url.encode(), 'name="image"')), predictor, image=sample["image"])
    assert "file" in assert_problem(
        send(client, part(as_base64(sample["image"]).encode(), 'name="image"')), 422, "invalid-input", "image"
    )


def test_a_damaged_file_in_json_is_refused_by_its_name(client: TestClient) -> None:
    reply = send(client, part(b'"a?b"', 'name="image"', "Content-Type: application/json"))
    assert "base64" in assert_problem(reply, 422, "invalid-input", "image")


def test_a_line_break_in_a_field_of_a_form_is_the_one_that_was_typed(client: TestClient, predictor: Predictor) -> None:
    """Browsers write it as CRLF; JSON and files hold what was meant."""
    assert_answers(send(client, part(b"a\r\nb", 'name="text"')), predictor, text="a\nb")
    assert_answers(client.post("/predict", data={"text": "a\r\nb"}), predictor, text="a\nb")
    assert_answers(send(client, part(b"a\r\nb", 'name="text"; filename="a.txt"')), predictor, text="a\r\nb")
    assert_answers(client.post("/predict", json={"text": "a\r\nb"}), predictor, text="a\r\nb")


# application/x-www-form-urlencoded: what clients send when there is no file.


def test_an_urlencoded_form_is_read(client: TestClient, predictor: Predictor, sample: dict[str, Any]) -> None:
    fields = {"text": "café + 1=2&", "vector": "[0.5, -1, 2, 3]"}
    expected = {"text": fields["text"], "vector": [0.5, -1.0, 2.0, 3.0]}
    assert_answers(client.post("/predict", data=fields), predictor, **expected)
    assert_answers(client.post("/predict", data=fields | {"image": "", "top_k": ""}), predictor, **expected)
    answer = client.post("/predict", data=fields | {"top_k": "1", "fusion": "paper"})
    assert len(answer.json()["probabilities"]) == 1
    assert set(client.post("/embed", data=fields).json()["features"]) == set(fields)
    raw = client.post("/predict", content="text=café".encode(), headers=URLENCODED)
    assert_answers(raw, predictor, text="café")
    latin = client.post(
        "/predict",
        content="text=caf%E9",
        headers={"Content-Type": "application/x-www-form-urlencoded; charset=ISO-8859-1"},
    )
    assert_answers(latin, predictor, text="café")


def test_a_file_in_an_urlencoded_form_is_base64(
    client: TestClient, predictor: Predictor, sample: dict[str, Any]
) -> None:
    content = as_base64(sample["image"])
    for body in (
        urlencode({"image": content}),
        f"image={content}",
        f"image=data:image/png;base64,{quote_plus(content)}",
    ):
        assert_answers(client.post("/predict", content=body, headers=URLENCODED), predictor, image=sample["image"])


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        (b"", 400, "missing-input", "image"),
        (b"text=", 400, "missing-input", "image"),
        (b"hello", 400, "unknown-field", "hello"),
        (b"video=x", 400, "unknown-field", "video"),
        (b"text=a&text=b", 422, "invalid-input", "text"),
        (b"text=%ff", 400, "malformed-request", "body"),
        (b"text=\xff", 400, "malformed-request", "body"),
        (b"image=@x.png", 422, "invalid-input", "image"),
        (b"image=/etc/passwd", 415, "unsupported-format", "image"),
        (b"text=a&top_k=two", 422, "invalid-input", "top_k"),
        (b'{"text": "a"}', 415, "unsupported-format", "content-type"),
        (b'\r\n [{"text": "a"}]', 415, "unsupported-format", "content-type"),
    ],
)
def test_a_bad_urlencoded_form_is_refused(client: TestClient, body: bytes, status: int, slug: str, field: str) -> None:
    detail = assert_problem(client.post("/predict", content=body, headers=URLENCODED), status, slug, field)
    assert ("-H 'Content-Type: application/json'" in detail) == (field == "content-type")


# The query string.


def test_options_may_stand_in_the_url(client: TestClient, sample: dict[str, Any]) -> None:
    query = "top_k=2&fusion=paper"
    bodies: list[dict[str, Any]] = [{"data": {"text": "a"}}, {"json": {"text": "a"}}, {"files": {"text": (None, b"a")}}]
    for body in bodies:
        answer = client.post(f"/predict?{query}", **body).json()
        assert (len(answer["probabilities"]), answer["fusion"]) == (2, "paper")
    batch = client.post(f"/predict/batch?{query}", json={"samples": [{"text": "a"}]}).json()["results"][0]
    assert (len(batch["probabilities"]), batch["fusion"]) == (2, "paper")
    answer = client.post("/predict?top_k=&fusion=", json={"text": "a", "top_k": 1}).json()
    assert (len(answer["probabilities"]), answer["fusion"]) == (1, "calibrated")


@pytest.mark.parametrize(
    ("path", "status", "slug", "field"),
    [
        ("/predict?k=3", 400, "unknown-field", "k"),
        ("/predict?text=hello", 400, "unknown-field", "text"),
        ("/predict?top_k=3&top_k=3", 422, "invalid-input", "top_k"),
        ("/predict?top_k=two", 422, "invalid-input", "top_k"),
        ("/predict?fusion=none", 400, "unknown-field", "fusion"),
        ("/predict?coverage=%ff", 400, "malformed-request", "query"),
        ("/predict?" + "top_k=&" * 200, 400, "malformed-request", "query"),
        ("/predict/batch?k=3", 400, "unknown-field", "k"),
        ("/embed?top_k=3", 400, "unknown-field", "top_k"),
    ],
)
def test_a_bad_query_is_refused(client: TestClient, path: str, status: int, slug: str, field: str) -> None:
    body = {"samples": [{"text": "a"}]} if "batch" in path else {"text": "a"}
    assert_problem(client.post(path, json=body), status, slug, field)


@pytest.mark.parametrize("option", ["top_k", "fusion", "coverage"])
def test_an_option_is_sent_once(client: TestClient, option: str) -> None:
    value = {"top_k": "1", "fusion": "paper", "coverage": "0.5"}[option]
    bodies: list[dict[str, Any]] = [
        {"data": {option: value}},
        {"json": {option: value}},
        {"files": {option: (None, value)}},
    ]
    for body in bodies:
        reply = client.post(f"/predict?{option}={value}", **body)
        assert "send it once" in assert_problem(reply, 422, "invalid-input", option)
    reply = client.post(f"/predict/batch?{option}={value}", json={"samples": [{"text": "a"}], option: value})
    assert_problem(reply, 422, "invalid-input", option)


# Options are the same numbers wherever they come from.


@pytest.mark.parametrize(
    ("given", "number"), [("3", 3), (" 3 ", 3), ("+3", 3), ("3.0", 3), ("3.", 3), ("3e0", 3), ("30e-1", 3), ("007", 7)]
)
def test_top_k_is_a_whole_number_however_it_is_written(given: str, number: int) -> None:
    assert merge_options(parse_number_options({"top_k": given}), {}).top_k == number


@pytest.mark.parametrize("given", [3, 3.0, 1e300])
def test_top_k_is_a_whole_number_in_json(given: float) -> None:
    assert merge_options({}, {"top_k": given}).top_k == given


@pytest.mark.parametrize(
    "given",
    ["0", "-1", "3.5", "1e-1", "two", "", "1_0", "٣", "0x3", "nan", "inf", "1e999", "9" * 5000, "3 4", "3,0", "."],
)
def test_what_is_no_top_k_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="top_k") as caught:
        merge_options(parse_number_options({"top_k": given}), {})
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("given", ["3", 0, -1, 3.5, True, [3], {"a": 1}, math.inf])
def test_what_is_no_top_k_in_json_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="top_k"):
        merge_options({}, {"top_k": given})


@pytest.mark.parametrize(
    "given", ["0.9299999999999999", "1e-5", ".5", "0.5", "+0.5", "5E-1", " 0.5\n", "00.5", "1e-300"]
)
def test_coverage_is_a_number_however_it_is_written(given: str) -> None:
    assert merge_options(parse_number_options({"coverage": given}), {}).coverage == float(given)


@settings(deadline=None)  # the machine may be busy
@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_every_coverage_that_a_program_prints_is_read(number: float) -> None:
    for text in (repr(number), f"{number:.30f}", f"{number:e}", json.dumps(number)):
        if 0 < float(text) < 1:
            assert merge_options(parse_number_options({"coverage": text}), {}).coverage == float(text)
    assert merge_options({}, {"coverage": number}).coverage == number


@pytest.mark.parametrize("given", ["0", "1", "1.0", "-0.5", "2", "0,9", "90%", "nan", "1e-999", "0." + "9" * 50])
def test_what_is_no_coverage_is_refused(given: str) -> None:
    with pytest.raises(InputError, match=r"coverage.*between 0 and 1"):
        merge_options(parse_number_options({"coverage": given}), {})


@pytest.mark.parametrize("given", [0, 1, -0.5, "0.5", [0.5], True])
def test_what_is_no_coverage_in_json_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"coverage.*between 0 and 1"):
        merge_options({}, {"coverage": given})


def test_a_huge_top_k_lists_every_class(client: TestClient) -> None:
    for number in (10**18, 1e300):
        assert len(client.post("/predict", json={"text": "a", "top_k": number}).json()["probabilities"]) == 3


# JSON.


def test_one_sample_may_be_json(
    client: TestClient, predictor: Predictor, sample: dict[str, Any], all_subsets: Any
) -> None:
    written = {name: as_base64(value) if isinstance(value, bytes) else value for name, value in sample.items()}
    for names in all_subsets(list(sample)):
        body = {name: written[name] for name in names}
        assert_answers(client.post("/predict", json=body), predictor, **{name: sample[name] for name in names})
        assert set(client.post("/embed", json=body).json()["features"]) == set(names)
    answer = client.post("/predict", json=written | {"top_k": 2, "fusion": "paper"}).json()
    assert (len(answer["probabilities"]), answer["fusion"]) == (2, "paper")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json", "application/ld+json"]
)
def test_json_is_accepted_under_several_media_types(client: TestClient, predictor: Predictor, kind: str) -> None:
    headers = {"Content-Type": kind}
    assert_answers(client.post("/predict", content=b'{"text": "a"}', headers=headers), predictor, text="a")
    assert client.post("/predict/batch", content=b'{"samples": [{"text": "a"}]}', headers=headers).status_code == 200


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_in_another_unicode_encoding_is_read(client: TestClient, predictor: Predictor, codec: str) -> None:
    reply = client.post("/predict", content='{"text": "café"}'.encode(codec), headers=JSON)
    assert_answers(reply, predictor, text="café")


def test_json_is_read_in_the_character_set_that_it_names(client: TestClient, predictor: Predictor) -> None:
    headers = {"Content-Type": "application/json; charset=ISO-8859-1"}
    reply = client.post("/predict", content='{"text": "café"}'.encode("latin-1"), headers=headers)
    assert_answers(reply, predictor, text="café")
    reply = client.post("/predict", content='{"text": "café"}'.encode("latin-1"), headers=JSON)
    assert_problem(reply, 400, "malformed-request", "body")


def base64_spellings(content: bytes) -> dict[str, str]:
    plain = base64.b64encode(content).decode()
    return {
        "plain": plain,
        "without padding": plain.rstrip("="),
        "for URLs": base64.urlsafe_b64encode(content).decode(),
        "for URLs, without padding": base64.urlsafe_b64encode(content).decode().rstrip("="),
        "in lines": base64.encodebytes(content).decode(),
        "in lines of Windows": base64.encodebytes(content).decode().replace("\n", "\r\n"),
        "a data: URL": f"data:image/png;base64,{plain}",
        "a data: URL with escapes": f"data:image/png;base64,{quote_plus(plain)}",
        "a data: URL in capitals": f"DATA:;BASE64,{plain}",
        "a data: URL with a parameter": f"data:image/png;name=x.png;base64,{plain}",
    }


@pytest.mark.parametrize("spelling", base64_spellings(b""))
def test_base64_is_read_in_every_spelling(client: TestClient, predictor: Predictor, spelling: str) -> None:
    for seed in range(3):  # of lengths that are padded with none, one and two
        image = predictor.bundle.inputs["image"].generate(np.random.default_rng(seed))
        assert isinstance(image, bytes)
        image += b"\0" * ((seed - len(image)) % 3)
        body = {"image": base64_spellings(image)[spelling]}
        assert_answers(client.post("/predict", json=body), predictor, image=image)
        assert "problem" not in client.post("/predict/batch", json={"samples": [body]}).json()["results"][0]


@pytest.mark.parametrize(
    "given",
    ["not base64!", "@image.png", "a", "data:image/png,abc", "data:image/png;base64", "====", "YQ==YQ==", "YW%2B"],
)
def test_what_is_no_base64_is_refused(client: TestClient, given: str) -> None:
    assert_problem(client.post("/predict", json={"image": given}), 422, "invalid-input", "image")


def test_the_picture_of_an_empty_canvas_is_an_empty_file(client: TestClient) -> None:
    for url in ("data:image/png;base64,", "data:;base64, "):
        assert "empty" in assert_problem(client.post("/predict", json={"image": url}), 422, "invalid-input", "image")


def test_a_file_in_json_is_measured_without_its_line_breaks(tiny_bundle: Path) -> None:
    settings = Settings(model=tiny_bundle, device="cpu", max_part_bytes=3000)
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        fits, exceeds = (base64.encodebytes(b"x" * count).decode() for count in (3000, 3001))
        assert_problem(client.post("/predict", json={"image": fits}), 415, "unsupported-format", "image")
        assert_problem(client.post("/predict", json={"image": exceeds}), 413, "too-large", "image")


@pytest.mark.parametrize("missing", ["null", "NaN", '""'])
def test_null_and_nan_mean_missing(client: TestClient, predictor: Predictor, missing: str) -> None:
    # "NaN" in a text, and beside an escaped quote, stays what it is
    text = 'NaN "NaN" \\'
    body = f'{{"image": {missing}, "text": {json.dumps(text)}, "vector":{missing},"top_k": {missing}, "fusion": {missing}}}'
    assert_answers(client.post("/predict", content=body, headers=JSON), predictor, text=text)
    batch = f'{{"samples": [{{"text": {json.dumps(text)}, "audio": {missing}}}, {{"text": {missing}}}], "top_k": {missing}}}'
    results = client.post("/predict/batch", content=batch, headers=JSON).json()["results"]
    assert results[0]["missing"] == ["image", "audio", "vector"]
    assert results[1]["problem"]["type"] == "/problems/missing-input"
    reply = client.post("/predict", content=f'{{"text": {missing}}}', headers=JSON)
    assert_problem(reply, 400, "missing-input", "image")


def test_rows_of_a_data_frame_can_be_sent(client: TestClient, predictor: Predictor) -> None:
    records = [{"text": "abc", "vector": float("nan")}, {"text": float("nan"), "vector": [0.5, 1, 2, 3]}]
    body = json.dumps({"samples": records})
    assert "NaN" in body
    results = client.post("/predict/batch", content=body, headers=JSON).json()["results"]
    assert [list(each["modalities"]) for each in results] == [["text"], ["vector"]]


def test_a_number_is_a_vector_of_one(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "age", {"age": "vector"}, inputs={"age": VectorInput(size=1)})
    settings = Settings(model=folder, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        replies = [client.post("/predict", json={"age": value}) for value in (42, 42.0, [42])]
        replies.append(client.post("/predict", data={"age": "42"}))
        assert len({reply.json()["probability"] for reply in replies}) == 1


@pytest.mark.parametrize(
    ("body", "status", "slug", "field"),
    [
        (b"", 400, "malformed-request", "body"),
        (b"{", 400, "malformed-request", "body"),
        (b'"text"', 400, "malformed-request", "body"),
        (b"null", 400, "malformed-request", "body"),
        (b"NaN", 400, "malformed-request", "body"),
        (b'[{"text": "a"}]', 400, "malformed-request", "body"),
        (b"[" * 5000, 400, "malformed-request", "body"),
        (b'{"text":' * 5000, 400, "malformed-request", "body"),
        (b'{"text": "NaN}', 400, "malformed-request", "body"),
        (b'{"text": NaNNaN}', 400, "malformed-request", "body"),
        (b'{"text": -NaN}', 400, "malformed-request", "body"),
        (b'{"vector": [Infinity, 1, 2, 3]}', 400, "malformed-request", "body"),
        (b'{"coverage": -Infinity}', 400, "malformed-request", "body"),
        (b'{"vector": [1e999, 1, 2, 3]}', 400, "malformed-request", "body"),
        (b"{'text': 'a'}", 400, "malformed-request", "body"),
        (b'{"text": "a",}', 400, "malformed-request", "body"),
        (rb'{"text": "\ud800"}', 400, "malformed-request", "body"),
        (rb'{"text": "\ud800", "vector": NaN}', 400, "malformed-request", "body"),
        (b'{"text": "\xff"}', 400, "malformed-request", "body"),
        (b"{}", 400, "missing-input", "image"),
        (b'{"text": 2024}', 422, "invalid-input", "text"),
        (b'{"text": ["a"]}', 422, "invalid-input", "text"),
        (b'{"image": {"$binary": "YQ=="}}', 422, "invalid-input", "image"),
        (b'{"vector": "1 2 3 4"}', 422, "invalid-input", "vector"),
        (b'{"vector": true}', 422, "invalid-input", "vector"),
        (b'{"vector": []}', 422, "invalid-input", "vector"),
        (b'{"vector": [NaN, 1, 2, 3]}', 422, "invalid-input", "vector"),
        (b'{"samples": [{"text": "a"}]}', 400, "unknown-field", "samples"),
        (b'{"text": "a", "text": "b"}', 422, "invalid-input", "text"),
        (rb'{"text": "a", "\u0074ext": "a"}', 422, "invalid-input", "text"),
        (b'{"text": "a:b", "vector": [1,2,3,4], "text": null}', 422, "invalid-input", "text"),
        (b'{"text": "a", "vector": NaN, "vector": NaN}', 422, "invalid-input", "vector"),
        (rb'{"\ud800": 1, "\ud800": 2, "text": NaN}', 422, "invalid-input", "?"),
        (rb'{"\ud800": 1, "text": NaN}', 400, "malformed-request", "body"),
        (b'{"text": 1e999, "vector": NaN}', 400, "malformed-request", "body"),
        (b'{"text": Infinity, "vector": NaN}', 400, "malformed-request", "body"),
        (b'{"vector": NaN, "text": ' + b"[" * 5000, 400, "malformed-request", "body"),
        (b'{"vector": NaN, "text": ' + b"[" * 500 + b"]" * 500 + b"}", 400, "malformed-request", "body"),
        (b'{"vector": NaN, "top_k": ' + b"9" * 5000 + b"}", 422, "invalid-input", "top_k"),
        (b'{"text": "a", "top_k": 1, "top_k": 2}', 422, "invalid-input", "top_k"),
        (b'{"text": "a", "samples": [{}], "samples": 3}', 422, "invalid-input", "samples"),
    ],
)
def test_a_bad_json_body_is_refused(client: TestClient, body: bytes, status: int, slug: str, field: str) -> None:
    assert_problem(client.post("/predict", content=body, headers=JSON), status, slug, field)


def test_a_member_that_is_repeated_in_a_sample_is_refused(client: TestClient) -> None:
    body = b'{"samples": [{"text": "a"}, {"text": "b", "text": "c"}]}'
    assert_problem(client.post("/predict/batch", content=body, headers=JSON), 422, "invalid-input", "text")
    fine = b'{"samples": [{"text": "a:b"}, {"text": "{:\\":"}, {"text": ":"}]}'
    assert "problem" not in client.post("/predict/batch", content=fine, headers=JSON).text


documents = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(':"\\{}N,ab', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(':"\\Na', max_size=3), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text('ab:"', max_size=3), documents, max_size=4), st.sampled_from([None, 2]))
def test_any_object_is_parsed_as_it_was_written(content: dict[str, Any], indent: int | None) -> None:
    assert parse_object(json.dumps(content, indent=indent).encode(), ContentType(), 10_000, "{}") == content


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c:"]), documents), min_size=1, max_size=5))
def test_a_repeated_member_is_found_wherever_it_stands(members: list[tuple[str, Any]]) -> None:
    written = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members)
    for body in (f"{{{written}}}", f'{{"samples": [{{{written}}}]}}', f'{{"x": {{{written}, "y": NaN}}}}'):
        if len({name for name, _ in members}) < len(members):
            with pytest.raises(InputError, match="more than once"):
                parse_object(body.encode(), ContentType(), 10_000, "{}")
        else:
            assert parse_object(body.encode(), ContentType(), 10_000, "{}")


@pytest.mark.parametrize("piece", [b'\\"', b'"NaN', b'"\\\\":NaN,', b'":"', b"NaN,", b'{"a":'])
def test_no_body_is_parsed_in_quadratic_time(piece: bytes) -> None:
    # 4 MB of each: quadratic would be minutes, and the suite's faulthandler would end it
    with pytest.raises(InputError):
        parse_object(b'{"NaN": "' + piece * (4_000_000 // len(piece)), ContentType(), 10**9, "{}")


# Content types.


@pytest.mark.parametrize(
    "kind", [None, "text/plain;charset=UTF-8", "application/octet-stream", "image/png", "*/*", ";", "x"]
)
@pytest.mark.parametrize("path", PATHS)
def test_another_content_type_is_refused_with_what_to_send(client: TestClient, path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    detail = assert_problem(
        client.post(path, content=b'{"text": "a"}', headers=headers), 415, "unsupported-format", "content-type"
    )
    assert "Content-Type: application/json" in detail
    assert f"localhost:3000{path}" in detail


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/embed"])
def test_a_compressed_body_is_refused(client: TestClient, path: str) -> None:
    headers = JSON | {"Content-Encoding": "gzip"}
    detail = assert_problem(
        client.post(path, content=b"\x1f\x8b", headers=headers), 415, "unsupported-format", "content-encoding"
    )
    assert "gzip" in detail
    assert client.post("/predict", content=b'{"text": "a"}', headers=JSON | {"Content-Encoding": "identity"}).is_success


def test_json_of_another_shape_is_refused_with_an_example(client: TestClient) -> None:
    detail = assert_problem(client.post("/predict", json=[{"text": "a"}]), 400, "malformed-request", "body")
    assert detail == 'expected a JSON object, got a list; send {"image": ...}'
    detail = assert_problem(client.post("/predict/batch", json=[{"text": "a"}]), 400, "malformed-request", "body")
    assert detail == 'expected a JSON object, got a list; send {"samples": [{...}, ...]}'


BODIES = (
    b'{"text": "a", "vector": [0.5, -1, 2, NaN], "top_k": 3, "fusion": null, "image": "data:;base64,YQ=="}',
    b"text=caf%C3%A9&vector=1+2+3+4&top_k=3&coverage=&image=YQ%3D%3D",
    part(b'"a"', 'name="text"; filename=""', "Content-Type: application/json; charset=utf-16")
    + part(b"YQ==", "name=\"image\"; filename*=UTF-8''x", "Content-Transfer-Encoding: base64")
    + b"--b--\r\n",
)
KINDS = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "a/b+json",
    "text/x",
)
PARAMETERS = ("", "; charset=utf-16", "; charset=shift_jis", '; charset="', "; charset=\u00e9", "; boundary=--b")
PIECES = st.binary(max_size=4) | st.sampled_from(
    [b"\\ud800", b"%ff", b"\xff\xfe", b"\0", b'"', b"&", b"--b\r\n", b"NaN", b":", b"=", b"\xef\xbb\xbf", b"[" * 300]
)


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(BODIES), st.sampled_from(KINDS), st.sampled_from(PARAMETERS), st.data())
def test_any_body_is_answered(client: TestClient, body: bytes, kind: str, parameters: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(PIECES) + body[at + data.draw(st.integers(0, 6)) :]
    path = data.draw(st.sampled_from(["/predict", "/embed", "/predict?top_k=2", "/predict/batch"]))
    reply = client.post(path, content=body, headers={"Content-Type": (kind + parameters).encode("latin-1")})  # type: ignore[dict-item]
    assert reply.status_code in (200, 400, 413, 415, 422), reply.text
    assert reply.json()
