"""JSON bodies, strictly: one meaning or none. What Python and browsers write is read, also where JSON has no such thing.

orjson parses, in the time that a parser of the standard library takes for a tenth of it. Beside its rules: NaN, as Python
writes a missing value, is null; a member that is repeated is refused, since parsers disagree on which one counts.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from mla_serve.errors import InputError, MissingInput, TooLarge, UnsupportedFormat
from mla_serve.inputs import Input, Payload
from mla_serve.serve.content_type import FIELD, ContentType, content_type_of
from mla_serve.serve.fields import BODY, OPTIONS, check_known, check_new, json_type, payload_of_json, sent
from mla_serve.serve.problems import MalformedRequest

# A string, up to the end where it is not closed: an expression that can fail there would try again at every quote.
STRING_OR_NAN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|NaN', re.DOTALL)


def check_content_type(request: Request) -> ContentType:
    """Refuse a body that does not claim to be JSON."""
    given = request.headers.get("content-type")
    kind = content_type_of(request)
    if not kind.is_json:
        was = f"sent as {given[:100]!r}" if given else "sent without a content type"
        example = """curl -H 'Content-Type: application/json' -d '{"samples": [{...}]}' localhost:3000/predict/batch"""
        raise UnsupportedFormat(FIELD, f"the body was {was}; send application/json, for example: {example}")
    return kind


def parse_object(body: bytes, kind: ContentType, max_values: int, example: str) -> dict[str, Any]:
    """Parse a body that is one JSON object; `example` shows one, for whoever sent something else.

    Raises: TooLarge; MalformedRequest; InputError, naming a repeated member; UnsupportedFormat.
    """
    body = _to_utf8(body, kind)
    if sum(map(body.count, (b",", b"[", b"{"))) > max_values:  # a byte of JSON can become 60 bytes of objects
        raise TooLarge(BODY, f"more than {max_values:,} values in the JSON; send several requests")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        body, content = _parse_with_nan(body, error)
    if not isinstance(content, dict):
        raise MalformedRequest(BODY, f"expected a JSON object, got {json_type(content)}; send {example}")
    _refuse_repeated(body, content)
    return content


def sample_from_json(item: object, inputs: Mapping[str, Input], max_bytes: int) -> dict[str, Payload]:
    """Turn one item of a batch into payloads.

    Raises: InputError or UnknownField, naming the modality.
    """
    if not isinstance(item, dict):
        raise InputError(
            "samples", f"expected an object such as {{{next(iter(inputs))!r}: ...}}, got {json_type(item)}"
        )
    for name in item:
        check_known(name, inputs)
    return {name: payload_of_json(name, value, inputs[name], max_bytes) for name, value in sent(item).items()}


def split_options(
    content: Mapping[str, Any], others: tuple[str, ...], options: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the members of an object into the others and the options; what was not sent is left out.

    Raises: UnknownField.
    """
    for name in content:
        check_known(name, (*others, *options))
    members = sent(content)
    return (
        {name: value for name, value in members.items() if name not in options},
        {name: value for name, value in members.items() if name in options},
    )


def parse_batch(body: bytes, kind: ContentType, max_items: int, max_values: int) -> tuple[list[Any], dict[str, Any]]:
    """Parse the body of /predict/batch: the samples as they stand there, and the options.

    Raises: MalformedRequest, UnknownField, MissingInput, TooLarge or InputError, for faults of the body as a whole.
    """
    content = parse_object(body, kind, max_values, '{"samples": [{...}, ...]}')
    members, options = split_options(content, ("samples",), OPTIONS)
    samples = members.get("samples")
    if samples is None:
        raise MissingInput("samples", 'nothing was sent; send {"samples": [{...}, ...]}')
    if not isinstance(samples, list) or not samples:
        raise InputError("samples", f"expected a list of one sample or more, got {json_type(samples)}")
    if len(samples) > max_items:
        raise TooLarge(
            "samples", f"{len(samples):,} samples, at most {max_items:,} are read at once; send several requests"
        )
    return samples, options


def _to_utf8(body: bytes, kind: ContentType) -> bytes:
    """Bring a body to UTF-8 without a byte order mark, from what the request names or its first bytes show."""
    codec = kind.codec() if kind.charset else json.detect_encoding(body)
    if codecs.lookup(codec).name in ("utf-8", "utf-8-sig"):
        return body.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(codec).encode()
    except ValueError:
        raise MalformedRequest(BODY, f"expected {codec}, got other bytes; send UTF-8") from None


def _parse_with_nan(body: bytes, error: orjson.JSONDecodeError) -> tuple[bytes, Any]:
    """Parse again with null for NaN; returns the body as it was parsed.

    Raises: MalformedRequest.
    """
    if b"NaN" in body:
        body = STRING_OR_NAN.sub(lambda found: b"null" if found[0] == b"NaN" else found[0], body)
        try:
            return body, orjson.loads(body)
        except orjson.JSONDecodeError as again:
            error = again
    said = "it is empty" if not body.strip() else str(error)
    raise MalformedRequest(BODY, f"this is no JSON ({said}); let a JSON library write it, in UTF-8") from None


def _refuse_repeated(body: bytes, content: dict[str, Any]) -> None:
    """Refuse a member that stands more than once in its object.

    Every member has its colon: as many colons as members in the result, and none is lost. More may stand in texts, and
    then a second parser looks.
    """
    samples = content.get("samples")
    inner = sum(len(each) for each in samples if isinstance(each, dict)) if isinstance(samples, list) else 0
    if body.count(b":") == len(content) + inner:
        return
    try:
        json.loads(body, object_pairs_hook=_refuse_repeated_names, parse_int=str, parse_float=str)
    except RecursionError:
        raise MalformedRequest(BODY, "the JSON is nested too deep; send an object of plain values") from None


def _refuse_repeated_names(members: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in members:
        check_new(name[:100], names)
        names.add(name[:100])
