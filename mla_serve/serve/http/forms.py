"""Form bodies: multipart/form-data, and application/x-www-form-urlencoded, which clients send when there is no file.

A form becomes a list of parts, and the parts become payloads and options. Parts are kept in memory, never in files: the
body limit bounds them. A text is not interpreted: `2024`, `true` and `{"a": 1}` are texts.
"""

from __future__ import annotations

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

from mla_serve.errors import InputError, UnsupportedFormat
from mla_serve.inputs import ColumnsInput, Input, Payload
from mla_serve.serve.http.content_type import (
    FIELD,
    MULTIPART,
    URLENCODED,
    ContentType,
    body_content_type,
    parse_content_type,
)
from mla_serve.serve.http.fields import (
    BODY,
    DATA_URL,
    MAX_EMPTY_FIELDS,
    FieldNames,
    check_not_repeated,
    decode_base64,
    parse_urlencoded,
    part_too_large,
    payload_from_json,
    without_empty,
)
from mla_serve.serve.http.options import OPTIONS, parse_number_options
from mla_serve.serve.problems import MalformedRequest

UNTYPED = ContentType()
NO_ENCODING = (b"", b"7bit", b"8bit", b"binary")  # Content-Transfer-Encodings that leave the content as it is


EVENTS = (
    "part_begin",
    "part_data",
    "part_end",
    "header_field",
    "header_value",
    "header_end",
    "headers_finished",
    "end",
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a form.

    is_file: whether it was sent with a file name, even an empty one. content: as it was sent. encoding: the
    Content-Transfer-Encoding of the content, empty where the content is sent as it is.
    """

    name: str
    is_file: bool
    content: bytes
    kind: ContentType = UNTYPED
    encoding: bytes = b""

    def decoded(self) -> bytes:
        """Return the content with its Content-Transfer-Encoding undone.

        Raises: InputError.
        """
        if self.encoding == b"base64":
            return decode_base64(self.name, self.content.decode("latin-1"), len(self.content))
        return binascii.a2b_qp(self.content) if self.encoding == b"quoted-printable" else self.content

    def text(self) -> str | None:
        """Return the content as text, or None for the null of JSON.

        Raises: InputError.
        """
        charset = self.kind.codec(self.name)
        try:
            # utf-8-sig drops the byte order mark that some editors write before a text
            text = self.decoded().decode("utf-8-sig" if charset == "utf-8" else charset)
        except UnicodeError as error:
            raise InputError(self.name, f"expected {charset.upper()}, got other bytes ({error})"[:200]) from None
        if self.kind.is_json:
            return _text_of_json(text)
        return text if self.is_file else text.replace("\r\n", "\n")  # browsers send a line break as CR LF


class MultipartReader:
    """Collect the parts of a multipart body as its bytes arrive: each name once, empty parts left out.

    An empty part with a file name is kept, so that an empty file is refused later. Names and sizes are checked while a
    part arrives, so that a body that will be refused is not read to its end.
    """

    def __init__(self, boundary: bytes, known: FieldNames, max_part_bytes: int) -> None:
        """Accept parts with the names that are known, each of at most `max_part_bytes` bytes.

        Raises: MalformedRequest for a boundary that cannot be used.
        """
        self._max_part_bytes = max_part_bytes
        self._most_parts = len(known) + MAX_EMPTY_FIELDS
        self._count = 0
        self.parts: list[Part] = []
        self._names: set[str] = set()
        self.complete = False
        self._known = known
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._name, self._has_filename = "", False
        self._finish: Callable[[bytes], Part]
        self._content = bytearray()
        callbacks = {f"on_{event}": getattr(self, f"_{event}") for event in EVENTS}
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # it wants a TypedDict
        except FormParserError as error:
            raise MalformedRequest(FIELD, f"the boundary cannot be used ({error})") from None

    def feed(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises: MalformedRequest; UnknownField after the headers of a part with an unknown name; InputError at the first
        byte under a name that was sent before; TooLarge; UnsupportedFormat.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MalformedRequest(
                BODY, f"this is no multipart/form-data ({error}); use an HTTP library to build it"
            ) from None

    def close(self) -> None:
        """Release the parser. It refers to this reader, and such a circle stays until the next garbage collection."""
        del self._parser

    def _part_begin(self) -> None:
        self._headers = {}
        self._content = bytearray()
        self._count += 1
        if self._count > self._most_parts:
            raise MalformedRequest(BODY, f"more than {self._most_parts} parts; send each that is needed once")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        name, filename = _parse_disposition(self._headers.get(b"content-disposition", b""))
        if name is None:
            raise MalformedRequest(
                BODY, "a part of the form has no name; send Content-Disposition: form-data; name=..."
            )
        self._name, self._has_filename = self._known.find(name.decode(errors="replace")), bool(filename)
        self._finish = self._part_from_headers(self._name, filename is not None)

    def _part_from_headers(self, name: str, is_file: bool) -> Callable[[bytes], Part]:
        """Return what makes the part that these headers announce, once its content has arrived."""
        kind = parse_content_type(self._headers.get(b"content-type"))
        encoding = self._headers.get(b"content-transfer-encoding", b"").strip().lower()
        if encoding not in (*NO_ENCODING, b"base64", b"quoted-printable"):
            given = encoding[:40].decode("latin-1")
            raise UnsupportedFormat(
                name, f"the Content-Transfer-Encoding {given!r} is not read; send the bytes as they are"
            )
        encoding = b"" if encoding in NO_ENCODING else encoding
        return functools.partial(Part, name, is_file, kind=kind, encoding=encoding)

    def _check(self, name: str, size: int) -> None:
        check_not_repeated(name, self._names)
        if size > self._max_part_bytes:
            raise part_too_large(name, self._max_part_bytes)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        self._check(self._name, len(self._content))

    def _part_end(self) -> None:
        if self._content or self._has_filename:
            self._check(self._name, len(self._content))
            self._names.add(self._name)
            self.parts.append(self._finish(bytes(self._content)))
        self._content = bytearray()

    def _end(self) -> None:
        self.complete = True


@functools.lru_cache(maxsize=64)  # clients repeat their headers, and to parse one costs as much as the rest of a part
def _parse_disposition(header: bytes) -> tuple[bytes | None, bytes | None]:
    """Return the name and the file name in a Content-Disposition header, None for what it lacks."""
    _, options = parse_options_header(header)
    return options.get(b"name"), options.get(b"filename", _extended_filename(header))


def _extended_filename(disposition: bytes) -> bytes | None:
    """Return the value of filename*=..., which RFC 7578 forbids, some libraries send and the parser ignores."""
    if b"filename*" not in disposition.lower():
        return None
    _, options = parse_options_header(
        re.sub(rb"filename\*(?:0\*?)?\s*=", b"extended=", disposition, flags=re.IGNORECASE)
    )
    return options.get(b"extended")


async def read_form(request: Request, known: FieldNames, example: Callable[[], str], max_part_bytes: int) -> list[Part]:
    """Read a multipart form.

    Args: known, the names that parts may have; example, returns a command that sends a form, for an error message.
    Raises: UnsupportedFormat for another content type; what MultipartReader raises.
    """
    given = request.headers.get("content-type")
    if given is None and request.headers.get("content-length", "0") == "0":
        return []
    kind = body_content_type(request)
    if kind.media_type != MULTIPART:
        was = f"sent as {given[:100]!r}" if given else "sent without a content type"
        raise UnsupportedFormat(
            FIELD,
            f"the body was {was}; send multipart/form-data, for example: {example()}, or JSON with the header "
            f"Content-Type: application/json",
        )
    if not kind.boundary:
        raise MalformedRequest(FIELD, "multipart/form-data without a boundary; let the HTTP library set it")
    with contextlib.closing(MultipartReader(kind.boundary, known, max_part_bytes)) as reader:
        return await _read_multipart(request, reader)


async def _read_multipart(request: Request, reader: MultipartReader) -> list[Part]:
    async for chunk in request.stream():
        if chunk:
            reader.feed(chunk)
    if not reader.complete:
        raise MalformedRequest(BODY, "the form ends early; send it to its closing boundary")
    return reader.parts


def read_urlencoded(body: bytes, charset: str, known: FieldNames, max_part_bytes: int) -> list[Part]:
    """Read application/x-www-form-urlencoded.

    Raises: MalformedRequest, UnknownField or InputError; UnsupportedFormat for JSON, which `curl -d` sends under this type.
    """
    if body.lstrip()[:1] in (b"{", b"["):
        raise UnsupportedFormat(
            FIELD,
            "the body looks like JSON, but it was sent as a form; add the header: curl -H 'Content-Type: application/json'",
        )
    parts: dict[str, Part] = {}
    for given, value in parse_urlencoded(body, charset, BODY, len(known)):
        name = known.find(given)
        if value:
            check_not_repeated(name, parts)
            content = value.encode()
            if (
                len(content) > 2 * max_part_bytes
            ):  # base64 takes 4/3 of a file's bytes; the file itself is checked later
                raise part_too_large(name, max_part_bytes)
            parts[name] = Part(name, False, content, ContentType(URLENCODED))
    return list(parts.values())


def sample_from_form(parts: Collection[Part], inputs: Mapping[str, Input], max_bytes: int) -> dict[str, Payload]:
    """Return the modalities of a form: {name: payload}.

    Raises: InputError for an empty file, text where a file belongs, or columns that are sent in both ways.
    """
    sample = {part.name: _payload(part, inputs[part.name], max_bytes) for part in parts if part.name in inputs}
    for name, cells in _single_cells(parts).items():
        if sample.get(name) is not None:
            column = next(iter(cells))
            raise InputError(
                name,
                f"sent as one JSON object and as single fields such as {name}.{column}; send it in one of these ways",
            )
        sample[name] = payload_from_json(name, cells, inputs[name], max_bytes)
    return without_empty(sample)


def _single_cells(parts: Collection[Part]) -> dict[str, dict[str, str | None]]:
    """Collect the fields MODALITY.COLUMN: {modality: {column: text}}."""
    cells: dict[str, dict[str, str | None]] = {}
    for part in parts:
        modality, dot, column = part.name.partition(".")
        if dot:
            cells.setdefault(modality, {})[column] = part.text()
    return cells


def options_from_form(parts: Collection[Part]) -> dict[str, Any]:
    """Return the options of a form.

    Raises: InputError for a file where an option belongs, or a text where a number belongs.
    """
    texts = {}
    for part in parts:
        if part.name in OPTIONS:
            if part.is_file and not part.kind.is_json:
                raise InputError(part.name, "a file was sent; send an option as a plain field")
            texts[part.name] = part.text()
    return parse_number_options(without_empty(texts))


def _payload(part: Part, reader: Input, max_bytes: int) -> Payload | None:
    if reader.sent_as != "file":
        if not part.content:
            raise InputError(part.name, "the file is empty; leave the field out if there is none")
        text = part.text()
        if text and isinstance(reader, ColumnsInput):
            return reader.present_cells(text, part.name) or None
        return text
    if part.is_file or part.encoding == b"base64" or part.kind.is_file:
        if not part.content:
            raise InputError(part.name, "the file is empty; leave the field out if there is none")
        return part.decoded()
    if part.kind.media_type == URLENCODED:
        return decode_base64(part.name, part.content.decode().replace(" ", "+"), max_bytes)  # curl -d does not escape +
    if part.content[: len(DATA_URL)].lower() == DATA_URL.encode() or part.kind.is_json:
        text = part.text()
        return text and decode_base64(part.name, text, max_bytes)
    raise InputError(part.name, f"expected a file, got a text field; send it as a file: curl -F {part.name}=@FILE")


def _text_of_json(text: str) -> str | None:
    """Return the string that a JSON text holds, or None for null; anything else stays as it was sent."""
    if text.strip() == "null":
        return None
    if text.lstrip()[:1] == '"':
        with contextlib.suppress(orjson.JSONDecodeError):
            return str(orjson.loads(text))
    return text
