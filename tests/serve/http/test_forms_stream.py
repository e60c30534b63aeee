"""Forms as they arrive: in one piece or many, with and without the headers that describe them."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from starlette.requests import Request
from starlette.types import Message

from mla_serve.errors import InputError, TooLarge, UnsupportedFormat
from mla_serve.serve.http.content_type import ContentType
from mla_serve.serve.http.fields import MAX_EMPTY_FIELDS, FieldNames
from mla_serve.serve.http.forms import MultipartReader, Part, read_form, read_urlencoded
from mla_serve.serve.problems import MalformedRequest

KNOWN = FieldNames({}, ("image", "text", "top_k"))
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
    reader = MultipartReader(b"b", KNOWN, 1000)
    reader.feed(BODY)
    freed = weakref.ref(reader)
    gc.disable()
    try:
        reader.close()
        del reader
        assert freed() is None
    finally:
        gc.enable()
    MultipartReader(b"b", KNOWN, 1000).close()  # nothing to let go of


def test_a_field_in_a_url_may_take_twice_its_bytes_and_no_more() -> None:
    """A file in base64 takes a third more than the file; what it decodes to is looked at later."""
    parts = read_urlencoded(b"text=" + b"x" * 20, "utf-8", KNOWN, 10)
    assert [len(part.content) for part in parts] == [20]
    with pytest.raises(TooLarge):
        read_urlencoded(b"text=" + b"x" * 21, "utf-8", KNOWN, 10)


def part(headers: str, content: bytes = b"") -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {headers}\r\n\r\n".encode() + content + b"\r\n"


@pytest.mark.parametrize("cut", [None, 7])
def test_empty_parts_are_passed_over_up_to_a_number(cut: int | None) -> None:
    most = len(KNOWN) + MAX_EMPTY_FIELDS
    for count in (most, most + 1):
        body = part('name="text"') * count + b"--b--\r\n"
        pieces = [body] if cut is None else [body[at : at + cut] for at in range(0, len(body), cut)]
        if count == most:
            assert read(pieces, content_type=MULTIPART, content_length=str(len(body))) == []
        else:
            with pytest.raises(MalformedRequest, match=f"more than {most} parts"):
                read(pieces, content_type=MULTIPART, content_length=str(len(body)))


def test_an_empty_file_that_is_sent_twice_is_refused_by_its_name() -> None:
    body = part('name="image"; filename="x"') * 2 + b"--b--\r\n"
    for pieces in ([body], [body[:40], body[40:]]):
        with pytest.raises(InputError) as refused:
            read(pieces, content_type=MULTIPART)
        assert refused.value.field == "image"


@pytest.mark.parametrize("name", ["filename*", "FILENAME*", "Filename*0*"])
def test_an_extended_filename_makes_a_file_in_either_case(name: str) -> None:
    body = part(f"name=\"image\"; {name}=UTF-8''x", b"content") + b"--b--\r\n"
    [found] = read([body], content_type=MULTIPART)
    assert (found.name, found.is_file, found.content) == ("image", True, b"content")


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "binary", "BINARY"])
def test_an_encoding_that_changes_nothing_is_none(encoding: str) -> None:
    body = part(f'name="text"\r\nContent-Transfer-Encoding: {encoding}', b"1=31") + b"--b--\r\n"
    [found] = read([body], content_type=MULTIPART)
    assert (found.encoding, found.text()) == (b"", "1=31")


def test_an_unknown_encoding_is_named_and_cut_where_it_is_long() -> None:
    body = part(f'name="text"\r\nContent-Transfer-Encoding: {"x" * 60}', b"a") + b"--b--\r\n"
    with pytest.raises(UnsupportedFormat, match=rf"the Content-Transfer-Encoding '{'x' * 40}' is not read"):
        read([body], content_type=MULTIPART)


def test_a_part_without_a_disposition_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="has no name"):
        read([b"--b\r\nContent-Type: text/plain\r\n\r\na\r\n--b--\r\n"], content_type=MULTIPART)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("", b'"abc"', '"abc"'),
        ("text/plain", b'"abc"', '"abc"'),
        ("application/json", b'"abc"', "abc"),
        ("application/json", b" null ", None),
        ("", b"null", "null"),
        ("", b"=41 =3D", "=41 =3D"),
    ],
)
def test_only_what_is_marked_as_json_is_read_as_json(kind: str, content: bytes, expected: str | None) -> None:
    assert Part("text", False, content, ContentType(kind)).text() == expected


@pytest.mark.parametrize("first", [b"Content-Transfer-Encoding: base64", b"Content-Type: application/json"])
def test_headers_of_a_part_come_in_any_order(first: bytes) -> None:
    rest = b'\r\nContent-Disposition: form-data; name="text"\r\n\r\n"YWJj"\r\n--b--\r\n'
    [found] = read([b"--b\r\n" + first + rest], content_type=MULTIPART)
    assert (found.name, found.content) == ("text", b'"YWJj"')
    assert (found.encoding, found.kind.is_json) == ((b"base64", False) if b"base64" in first else (b"", True))


@pytest.mark.parametrize("cut", [None, 30])
def test_a_field_that_is_sent_twice_is_refused_by_its_name(cut: int | None) -> None:
    body = (
        part('name="text"', b"a") + part('name="image"; filename="x"', b"b") + part('name="text"', b"c") + b"--b--\r\n"
    )
    with pytest.raises(InputError, match=r"^text: the field was sent more than once"):
        read([body] if cut is None else [body[:cut], body[cut:]], content_type=MULTIPART, content_length=str(len(body)))


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_part_may_have_as_many_bytes_as_are_allowed_and_no_more(pieces: int) -> None:
    for size in (1000, 1001):
        body = part('name="text"', b"x" * size) + b"--b--\r\n"
        step = -(-len(body) // pieces)
        sent = [body[at : at + step] for at in range(0, len(body), step)]
        if size == 1000:
            assert len(read(sent, content_type=MULTIPART, content_length=str(len(body)))[0].content) == size
        else:
            with pytest.raises(TooLarge, match=r"^text: more than 1,000 bytes"):
                read(sent, content_type=MULTIPART, content_length=str(len(body)))


@pytest.mark.parametrize("declared", [True, False])
def test_what_lies_behind_the_closing_boundary_is_passed_over(declared: bool) -> None:
    body = (
        part('name="text"', b"a")
        + b'--b--\r\n--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nb\r\n--b--\r\n'
    )
    headers = {"content_length": str(len(body))} if declared else {}
    assert [found.name for found in read([body], content_type=MULTIPART, **headers)] == ["text"]


@pytest.mark.parametrize(
    ("kind", "is_file", "is_json"),
    [
        ("", False, False),
        ("text/plain", False, False),
        ("text/csv", False, False),
        ("application/x-www-form-urlencoded", False, False),
        ("application/json", False, True),
        ("application/problem+json", False, True),
        ("image/svg+json", True, False),
        ("image/png", True, False),
        ("application/octet-stream", True, False),
    ],
)
def test_media_types_of_files_and_of_json_are_recognised(kind: str, is_file: bool, is_json: bool) -> None:
    assert ContentType(kind).is_file is is_file
    assert ContentType(kind).is_json is is_json
