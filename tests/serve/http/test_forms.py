"""Multipart bodies, well formed and damaged: what is read does not depend on the pieces in which they arrive."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mla_serve.errors import InputError
from mla_serve.serve.http.content_type import ContentType
from mla_serve.serve.http.fields import FieldNames
from mla_serve.serve.http.forms import MultipartReader, Part

KNOWN = FieldNames({}, ("image", "text", "top_k"))
LIMIT = 12
ENDS = (b"--\r\n", b"--", b"\r\n", b"--\r\nmore", b"--\r\n\r\n", b"")
HEADS = (
    b'Content-Disposition: form-data; name="%s"',
    b'Content-Disposition: form-data; name="%s"; filename="f.png"\r\nContent-Type: image/png',
    b'content-disposition: form-data; name="%s"; filename=""',
    b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="%s"',
    b'Content-Disposition: form-data; name="%s"; filename="a\\"b"',
    b"Content-Disposition: form-data; name=%s",
    b'CONTENT-DISPOSITION: FORM-DATA; NAME="%s"; FILENAME="a b"',
    b'Content-Disposition: form-data; filename="f"; name="%s"',
    b'Content-Disposition: form-data; name="%s"; filename="a;b"',
    b"Content-Disposition: form-data; name=\"%s\"; filename*=UTF-8''f",
    b'Content-Disposition: form-data; name="%s"; name="image"',
    b'Content-Disposition: form-data; name="%s"\r\nContent-Disposition: form-data; name="image"',
    b'Content-Disposition: form-data; name="%s"\r\nContent-Type: text/plain; charset=utf-16',
    b'Content-Disposition: form-data; name="%s"\r\n Content-Type: text/plain',
    b'Content-Disposition: form-data; name="%s"\r\nContent-Type: ',
    b'Content-Disposition: form-data; name="%s"\r\nContent-Type: Application/JSON',
    b'Content-Disposition: form-data; name="%s"; filename=""\r\nContent-Type: application/octet-stream',
    b'Content-Disposition: form-data; name="%s"\r\nContent-Transfer-Encoding: base64',
    b'Content-Disposition: form-data; name="%s"\r\nContent-Transfer-Encoding: x-own',
    b"Content-Disposition: form-data; name=\"%s\"; FileName*=UTF-8''f%20g",
    b'Content-Disposition: form-data; name="%s"; filename="' + b"f" * 5000 + b'"',
    b"",
)
NAMES = st.sampled_from([b"image", b"text", b"top_k"]) | st.sampled_from([b"other", b"", b"TEXT", b"\xc3\xa9"])
BOUNDARIES = st.sampled_from([b"b", b"-", b"--", b"b--", b"--b", b"x y", b"(.", b"a" * 70, b"a" * 71, b"\r", b"\xe9"])


def fragments(boundary: bytes) -> st.SearchStrategy[bytes]:
    """What a part's end could be mistaken for."""
    line = b"--" + boundary
    own = [line, b"\r\n" + line, line + b"\r\n", b"\r\n" + line + b"--", b"\r\n" + line + b"\r\n"]
    return st.sampled_from([b"", b"a", b"\r\n\r\n", b"\r\n", b"\r", b"\n", b"-", b"--", b"\0", b"\xff", *own])


def written(parts: list[tuple[bytes, bytes, bytes]], boundary: bytes, end: bytes) -> bytes:
    line = b"--" + boundary + b"\r\n"
    pieces = [head.replace(b"%s", name) + b"\r\n\r\n" + content for head, name, content in parts]
    return line + (b"\r\n" + line).join(pieces) + b"\r\n--" + boundary + end


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A boundary and a body: half of them as libraries write it, half with something changed."""
    boundary = draw(BOUNDARIES)
    any_bytes = fragments(boundary) | st.binary(max_size=LIMIT + 1)
    contents = st.lists(any_bytes, max_size=3).map(b"".join)
    parts = draw(st.lists(st.tuples(st.sampled_from(HEADS[:3]) | st.sampled_from(HEADS), NAMES, contents), max_size=3))
    body = written(parts, boundary, draw(st.sampled_from(ENDS)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(any_bytes) + body[at + draw(st.integers(0, 4)) :]
    return boundary, body


def outcome(boundary: bytes, pieces: list[bytes]) -> Any:
    """Return the parts of a body, or the class and the field of the error; the parser's message counts bytes of a piece."""
    try:
        reader = MultipartReader(boundary, KNOWN, LIMIT)
        for piece in pieces:
            reader.feed(piece)
    except InputError as error:
        return type(error), error.field
    return reader.complete, reader.parts


@settings(max_examples=400, deadline=None)  # the machine may be busy
@given(bodies(), st.lists(st.integers(0, 200), max_size=4))
@example((b"b", b'--b\r\nContent-Disposition: form-data; name="text"\r\n--b--'), [])
@example((b"\r", b'--\r\r\nContent-Disposition: form-data; name="text"\r\n\r\n\r\n--\r\n--\r--'), [])
def test_a_body_is_read_alike_in_one_piece_and_in_several(form: tuple[bytes, bytes], cuts: list[int]) -> None:
    boundary, body = form
    places = [0, *sorted(cuts), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(places) if start < end]
    assert outcome(boundary, pieces) == outcome(boundary, [body])


@pytest.mark.parametrize("end", ENDS[:2])
def test_the_forms_of_usual_clients_are_read(end: bytes) -> None:
    parts = [(HEADS[1], b"image", b"\x89PNG\r\n"), (HEADS[0], b"text", b"")]
    expected = Part("image", True, b"\x89PNG\r\n", ContentType("image/png"))
    assert outcome(b"b", [written(parts, b"b", end)]) == (True, [expected])
