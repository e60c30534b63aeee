"""Forms as they come in: in one piece or many, with and without the headers that say what they are."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from starlette.requests import Request
from starlette.types import Message

from mla_serve.errors import TooLarge, UnsupportedFormat
from mla_serve.serve.forms import FormReader, Part, read_form, read_urlencoded
from mla_serve.serve.problems import MalformedRequest

KNOWN = ("image", "text", "top_k")
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--\r\n'
    b"--b--\r\n"
)
MULTIPART = "multipart/form-data; boundary=b"


def read(pieces: list[bytes], **headers: str) -> list[Part]:
    """Read a form that comes in these pieces, under these headers."""
    left = list(pieces)

    async def receive() -> Message:
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": given}, receive)
    return asyncio.run(read_form(request, KNOWN, lambda: "curl -F text=hello", 1000))


CUTS = {
    "whole": [BODY],
    "two": [BODY[:50], BODY[50:]],
    "with empty ones": [b"", BODY[:120], b"", BODY[120:], b""],
    "byte by byte": [BODY[at : at + 1] for at in range(len(BODY))],
}


@pytest.mark.parametrize("pieces", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("declared", [True, False])
def test_a_form_is_the_same_in_one_piece_as_in_many(pieces: list[bytes], declared: bool) -> None:
    length = {"content_length": str(len(BODY))} if declared else {}
    parts = read(pieces, content_type=MULTIPART, **length)
    assert [(part.name, part.is_file, part.content) for part in parts] == [
        ("text", False, b"hello"),
        ("image", True, b"\x89PNG\r\n--"),
    ]


@pytest.mark.parametrize("cut", [0, 1, 60, len(BODY) - 8])
def test_a_form_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(MalformedRequest, match="the form ends early"):
        read([BODY[:cut]], content_type=MULTIPART, content_length=str(cut))


def test_a_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="without a boundary"):
        read([BODY], content_type="multipart/form-data")


@pytest.mark.parametrize("length", [{}, {"content_length": "0"}])
def test_a_request_without_a_body_and_a_type_has_no_parts(length: dict[str, str]) -> None:
    assert read([], **length) == []


@pytest.mark.parametrize(
    ("headers", "was"),
    [
        ({"content_length": "5"}, "sent without a content type;"),
        ({"content_length": "5", "content_type": "text/plain"}, "sent as 'text/plain';"),
        ({"content_length": "0", "content_type": "text/plain"}, "sent as 'text/plain';"),
        ({"content_type": "text/plain"}, "sent as 'text/plain';"),
        ({"content_type": "text/" + "x" * 200}, f"sent as '{'text/' + 'x' * 95}';"),
    ],
)
def test_another_type_is_refused_by_its_name_and_with_an_example(headers: dict[str, str], was: str) -> None:
    with pytest.raises(UnsupportedFormat) as refused:
        read([b"hello"], **headers)
    assert f"the body was {was} send multipart/form-data, for example: curl -F text=hello" in str(refused.value)


def test_a_reader_that_is_closed_is_freed_at_once() -> None:
    """Parser and reader hold each other; without a garbage collection their bytes would stay."""
    reader = FormReader(b"b", KNOWN, 1000)
    reader.feed(BODY)
    freed = weakref.ref(reader)
    gc.disable()
    try:
        reader.close()
        del reader
        assert freed() is None
    finally:
        gc.enable()
    FormReader(b"b", KNOWN, 1000).close()  # nothing to let go of


def test_a_field_in_a_url_may_take_twice_its_bytes_and_no_more() -> None:
    """A file in base64 takes a third more than the file; what it decodes to is looked at later."""
    parts = read_urlencoded(b"text=" + b"x" * 20, "utf-8", KNOWN, 10)
    assert [len(part.content) for part in parts] == [20]
    with pytest.raises(TooLarge):
        read_urlencoded(b"text=" + b"x" * 21, "utf-8", KNOWN, 10)
