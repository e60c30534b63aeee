"""Forms: the short way for plain ones reads what the parser reads, and refuses what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.errors import InputError
from mla_serve.serve.forms import FormReader, Part, _split_plain

KNOWN = ("image", "text", "top_k")
LIMIT = 12
HEADS = (
    b'Content-Disposition: form-data; name="%s"',
    b'Content-Disposition: form-data; name="%s"; filename="f.png"\r\nContent-Type: image/png',
    b'content-disposition: form-data; name="%s"; filename=""',
    b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="%s"',
    b'Content-Disposition: form-data; name="%s"; filename="a\\"b"',
    b"Content-Disposition: form-data; name=%s",
)
NAMES = st.sampled_from([b"image", b"text", b"other", b""])
CONTENTS = st.binary(max_size=14) | st.sampled_from(
    [b"\r\n--b", b"\r\n--bx", b"--b\r\n", b"a\r\n\r\nb", b"\r\n", b"\r\n-"]
)
PARTS = st.tuples(st.sampled_from(HEADS), NAMES, CONTENTS)
CLOSED = (b"\r\n--b--\r\n", b"\r\n--b--", b"\r\n--b\r\n", b"\r\n--b--\r\nmore", b"")


def written(parts: list[tuple[bytes, bytes, bytes]], end: bytes) -> bytes:
    pieces = [(head % name if b"%s" in head else head) + b"\r\n\r\n" + content for head, name, content in parts]
    return b"--b\r\n" + b"\r\n--b\r\n".join(pieces) + end


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    body = written(draw(st.lists(PARTS, max_size=3)), draw(st.sampled_from(CLOSED)))
    if draw(st.booleans()):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + draw(st.integers(0, 2)) :]
    return body


def outcome(feed: str, body: bytes) -> Any:
    reader = FormReader(b"b", KNOWN, LIMIT)
    try:
        getattr(reader, feed)(body)
    except InputError as error:
        return type(error), error.field, error.message
    return reader.complete, reader.parts


@given(bodies())
def test_a_whole_body_is_read_as_the_parser_reads_it(body: bytes) -> None:
    assert outcome("feed_whole", body) == outcome("feed", body)


@pytest.mark.parametrize("end", CLOSED[:2])
def test_the_forms_of_usual_clients_go_the_short_way(end: bytes) -> None:
    parts = [(HEADS[1], b"image", b"\x89PNG\r\n"), (HEADS[0], b"text", b"")]
    assert _split_plain(written(parts, end), b"b") == [Part("image", True, b"\x89PNG\r\n"), Part("text", False, b"")]
