"""Bodies to payloads and options: multipart/form-data for one sample, JSON for many.

Parts are kept in memory, never in files: the body limit bounds them. Text stays as it was sent: `2024`, `true` and
`{"a": 1}` are texts. No part of a body is ever taken as a path or fetched as a URL.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from mla_serve.errors import InputError, MissingInput, TooLarge, UnknownField, UnsupportedFormat
from mla_serve.inputs import Input, Payload
from mla_serve.serve.problems import MalformedRequest

BODY = "body"
OPTIONS = ("top_k", "fusion", "coverage")
PLAIN_BOUNDARY = re.compile(rb"[ -~]{1,70}")  # RFC 2046 allows fewer, but no longer one
PLAIN_HEAD = re.compile(
    rb'content-disposition: form-data; name="([a-z0-9_]{1,99})"(; filename="[a-z0-9_. -]{1,99}")?'
    rb"(?:\r\ncontent-type: [a-z0-9/.+-]{1,99})?",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a form: its name, whether it came as a file, its content."""

    name: str
    is_file: bool
    content: bytes


@dataclasses.dataclass(frozen=True)
class Options:
    """How to answer: how many labels, by which fusion rule, with a set of which coverage; None leaves it open."""

    top_k: int | None = None
    fusion: str | None = None
    coverage: float | None = None


class FormReader:
    """Collect the parts of a multipart body, each name once, as the bytes come in."""

    def __init__(self, boundary: bytes, known: Collection[str], max_part_bytes: int) -> None:
        """Expect parts named in `known`, so no more of them than that, each of `max_part_bytes` at most."""
        self._max_part_bytes = max_part_bytes
        self.parts: list[Part] = []
        self.complete = False
        self._boundary = boundary
        self._known = known
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._part = Part("", False, b"")
        self._content = bytearray()

    def feed_whole(self, body: bytes) -> None:
        """Parse a body that is there from the first to the last byte: as `feed` does, in a quarter of the time if it is plain.

        Raises: what `feed` raises.
        """
        parts = _split_plain(body, self._boundary)
        if parts is None:
            self.feed(body)
            return
        for part in parts:
            self._check_new(part.name)
            if len(part.content) > self._max_part_bytes:
                raise _too_large(part.name, self._max_part_bytes)
            self.parts.append(part)
        self.complete = True

    def feed(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises: MalformedRequest; UnknownField or InputError as soon as a part's header shows a name that is unknown or
        repeated.
        """
        try:
            parser = self._parser
        except FormParserError as error:
            raise MalformedRequest("content-type", f"the boundary cannot be used ({error})") from None
        try:
            parser.write(data)
        except FormParserError as error:
            raise MalformedRequest(
                BODY, f"this is no multipart/form-data ({error}); use an HTTP library to build it"
            ) from None

    @functools.cached_property
    def _parser(self) -> MultipartParser:
        events = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "end",
        )
        callbacks = {f"on_{event}": getattr(self, f"_{event}") for event in events}
        return MultipartParser(self._boundary, callbacks)  # type: ignore[arg-type]

    def close(self) -> None:
        """Let go of what has come: the parser calls the reader back, and such a circle stays until the next collection."""
        self.__dict__.pop("_parser", None)

    def _part_begin(self) -> None:
        self._headers = {}
        self._content = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"name" not in options:
            raise MalformedRequest(
                BODY, "a part of the form has no name; send Content-Disposition: form-data; name=..."
            )
        name = options[b"name"].decode(errors="replace")
        self._check_new(name)
        self._part = Part(name, b"filename" in options, b"")

    def _check_new(self, name: str) -> None:
        check_known(name, self._known)
        if any(part.name == name for part in self.parts):
            raise InputError(name, "the field was sent more than once; send it once")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if len(self._content) > self._max_part_bytes:
            raise _too_large(self._part.name, self._max_part_bytes)

    def _part_end(self) -> None:
        self.parts.append(dataclasses.replace(self._part, content=bytes(self._content)))
        self._content = bytearray()

    def _end(self) -> None:
        self.complete = True


def _split_plain(body: bytes, boundary: bytes) -> list[Part] | None:
    """Split a form as browsers and libraries write it into its parts; None for any other, which the parser reads."""
    start, end = b"--" + boundary + b"\r\n", b"\r\n--" + boundary + b"--"
    if not (PLAIN_BOUNDARY.fullmatch(boundary) and body.startswith(start) and body.endswith((end, end + b"\r\n"))):
        return None
    parts = []
    for piece in body[len(start) : body.rindex(end)].split(b"\r\n" + start):
        head, gap, content = piece.partition(b"\r\n\r\n")
        found = PLAIN_HEAD.fullmatch(head)
        if found is None or not gap or end[:-2] in content:
            return None
        parts.append(Part(found[1].decode(), found[2] is not None, content))
    return parts


def _too_large(name: str, limit: int) -> TooLarge:
    return TooLarge(name, f"more than {limit:,} bytes, which is the most that is read of one part; send a smaller one")


async def read_form(
    request: Request, known: Collection[str], example: Callable[[], str], max_part_bytes: int
) -> list[Part]:
    """Read a multipart body of parts whose names are in `known`; `example` gives a command that would send one.

    Raises: UnsupportedFormat for another content type; what FormReader raises.
    """
    given = request.headers.get("content-type")
    if given is None and request.headers.get("content-length", "0") == "0":
        return []
    content_type, options = parse_options_header(given)
    if content_type != b"multipart/form-data":
        sent = f"sent as {given[:100]!r}" if given else "sent without a content type"
        raise UnsupportedFormat(
            "content-type", f"the body was {sent}; send multipart/form-data, for example: {example()}"
        )
    if not options.get(b"boundary"):
        raise MalformedRequest("content-type", "multipart/form-data without a boundary; let the HTTP library set it")
    with contextlib.closing(FormReader(options[b"boundary"], known, max_part_bytes)) as reader:
        declared = request.headers.get("content-length")
        async for chunk in request.stream():
            if declared == str(len(chunk)):
                reader.feed_whole(chunk)
            elif chunk:
                reader.feed(chunk)
    if not reader.complete:
        raise MalformedRequest(BODY, "the form ends early; send it to its closing boundary")
    return reader.parts


def check_json(request: Request) -> None:
    """Refuse a body that does not claim to be JSON."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "application/json":
        example = """curl -H 'Content-Type: application/json' -d '{"samples": [{...}]}' localhost:3000/predict/batch"""
        raise UnsupportedFormat(
            "content-type", f"the body was sent as {given[:100]!r}; send application/json, for example: {example}"
        )


def check_known(name: str, known: Collection[str]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        raise UnknownField(name[:100], f"no such field; this model reads {', '.join(known)}")


def sample_from_form(parts: Collection[Part], inputs: Mapping[str, Input]) -> dict[str, Payload]:
    """Pick the modalities out of a form: {name: payload}.

    Raises: InputError for an empty part, or text where a file belongs.
    """
    return {part.name: _payload_of_part(part, inputs[part.name]) for part in parts if part.name in inputs}


def options_from_form(parts: Collection[Part]) -> Options:
    """Pick the options out of a form.

    Raises: InputError for a file in an option's place, an empty option, or a top_k or coverage that is no such number.
    """
    texts = {}
    for part in parts:
        if part.name in OPTIONS:
            if part.is_file:
                raise InputError(part.name, "a file was sent; send an option as a plain field")
            texts[part.name] = _filled_text(part)
    top_k = texts.get("top_k")
    if top_k is not None and not (top_k.isascii() and top_k.isdigit() and len(top_k) < 10):
        raise InputError("top_k", f"got {top_k[:20]!r}; send a whole number from 1")
    coverage = None if (text := texts.get("coverage")) is None else _coverage(text)
    return Options(None if top_k is None else int(top_k), texts.get("fusion"), coverage)


def _coverage(text: str) -> float:
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text):
        raise InputError("coverage", f"got {text[:20]!r}; send a number between 0 and 1, such as 0.9")
    return float(text)


def _payload_of_part(part: Part, reader: Input) -> Payload:
    if reader.sent_as != "file":
        return _filled_text(part)
    if not part.is_file:
        raise InputError(part.name, f"expected a file, got a text field; send it as a file: curl -F {part.name}=@FILE")
    if not part.content:
        raise InputError(part.name, "the file is empty; leave the field out if there is none")
    return part.content


def _filled_text(part: Part) -> str:
    try:
        text = part.content.decode("utf-8-sig" if part.is_file else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(part.name, f"expected UTF-8, got other bytes ({error.reason} at {error.start})") from None
    if not text:
        raise InputError(part.name, "the field is empty; leave it out if there is nothing to say")
    return text


def parse_batch(body: bytes, max_items: int, max_values: int) -> tuple[list[Any], Options]:
    """Parse the body of /predict/batch: the samples as they stand there, and the options.

    Raises: MalformedRequest, UnknownField, MissingInput, TooLarge or InputError, for faults of the body as a whole.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > max_values:  # a byte of JSON can become 60 bytes of objects
        raise TooLarge(BODY, f"more than {max_values:,} values in the JSON; send several requests")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(BODY, f"this is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise MalformedRequest(BODY, 'expected an object: {"samples": [...], "top_k": 3, "fusion": "calibrated"}')
    for name in content:
        check_known(name, ("samples", *OPTIONS))
    samples = content.get("samples")
    if samples is None:
        raise MissingInput("samples", 'nothing was sent; send {"samples": [{...}, ...]}')
    if not isinstance(samples, list) or not samples:
        raise InputError("samples", "expected a list of one sample or more")
    if len(samples) > max_items:
        raise TooLarge(
            "samples", f"{len(samples):,} samples, at most {max_items:,} are read at once; send several requests"
        )
    return samples, _options_from_json(content)


def sample_from_json(item: object, inputs: Mapping[str, Input], max_bytes: int) -> dict[str, Payload]:
    """Turn one item of a batch into payloads: files are base64, texts strings, vectors lists of numbers.

    Raises: InputError or UnknownField, naming the modality.
    """
    if not isinstance(item, dict):
        raise InputError(
            "samples", f"expected an object such as {{{next(iter(inputs))!r}: ...}}, got {_json_type(item)}"
        )
    for name in item:
        check_known(name, inputs)
    return {name: _payload_of_json(name, item[name], inputs[name], max_bytes) for name in item}


def _payload_of_json(name: str, value: Any, reader: Input, max_bytes: int) -> Payload:
    expected = {"file": "the file's content in base64", "text": "a string", "numbers": "a list of numbers"}[
        reader.sent_as
    ]
    if not isinstance(value, list if reader.sent_as == "numbers" else str):
        raise InputError(name, f"expected {expected}, got {_json_type(value)}; leave the field out if there is none")
    if not value:
        raise InputError(name, f"expected {expected}, got nothing; leave the field out if there is none")
    if reader.sent_as != "file":
        payload: Payload = value
        return payload
    if 3 * len(value) // 4 - value[-2:].count("=") > max_bytes:
        raise _too_large(name, max_bytes)
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(name, f"expected {expected}, got a string that is no base64") from None


def _options_from_json(content: Mapping[str, Any]) -> Options:
    top_k, fusion = content.get("top_k"), content.get("fusion")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int)):
        raise InputError("top_k", f"expected a whole number from 1, got {_json_type(top_k)}")
    if fusion is not None and not isinstance(fusion, str):
        raise InputError("fusion", f"expected the name of a rule, got {_json_type(fusion)}")
    coverage = content.get("coverage")
    if coverage is not None and (isinstance(coverage, bool) or not isinstance(coverage, int | float)):
        raise InputError("coverage", f"expected a number between 0 and 1, got {_json_type(coverage)}")
    return Options(top_k, fusion, coverage)


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
