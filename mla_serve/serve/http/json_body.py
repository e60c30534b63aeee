"""JSON bodies, read so that every parser would read the same.

Two things in JSON are read differently by different parsers, and each has a rule here:
NaN is no JSON, but Python's json writes it, often for a missing value. It is read as null, that is as not sent. Infinity
    has no such meaning and is refused.
A member that occurs twice has the first value for some parsers and the last for others. It is refused by its name, as a
    field that occurs twice in a form is. Otherwise a check before this service, which reads one, could be deceived about
    what this service reads.

orjson parses, because it is fast; but it keeps the last of two members without a word. So the colons of the body are
counted: with as many colons as members nothing was lost, and that is so for nearly every request. Otherwise (a colon in a
text, deeper objects, a repeated member) the standard library's parser reads the body again and sees every member.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request

from mla_serve.errors import InputError, MissingInput, TooLarge, UnsupportedFormat
from mla_serve.inputs import Input, Payload
from mla_serve.serve.http.content_type import FIELD, ContentType, body_content_type
from mla_serve.serve.http.fields import (
    BODY,
    check_known,
    json_type,
    payload_from_json,
    repeated_field,
    without_empty,
)
from mla_serve.serve.http.options import OPTIONS
from mla_serve.serve.problems import MalformedRequest

MAX_EXACT_DIGITS = 18  # an integer with more digits becomes a float, as orjson reads it


def check_content_type(request: Request) -> ContentType:
    """Return the content type of a body that must be JSON.

    Raises: UnsupportedFormat for another one.
    """
    given = request.headers.get("content-type")
    kind = body_content_type(request)
    if not kind.is_json:
        was = f"sent as {given[:100]!r}" if given else "sent without a content type"
        example = """curl -H 'Content-Type: application/json' -d '{"samples": [{...}]}' localhost:3000/predict/batch"""
        raise UnsupportedFormat(FIELD, f"the body was {was}; send application/json, for example: {example}")
    return kind


def parse_object(body: bytes, kind: ContentType, max_values: int, example: str) -> dict[str, Any]:
    """Parse a body that is one JSON object.

    Args: example, an object that would be accepted, for an error message.
    Raises: TooLarge; MalformedRequest; InputError, naming a repeated member; UnsupportedFormat.
    """
    body = _to_utf8(body, kind)
    if sum(map(body.count, (b",", b"[", b"{"))) > max_values:  # a byte of JSON can become 60 bytes of Python objects
        raise TooLarge(BODY, f"more than {max_values:,} values in the JSON; send several requests")
    try:
        content = orjson.loads(body)
        if isinstance(content, dict) and not _has_every_member(body, content):
            _parse_strictly(body)
    except orjson.JSONDecodeError as error:
        content = _parse_with_nan(body, error)
    if not isinstance(content, dict):
        raise MalformedRequest(BODY, f"expected a JSON object, got {json_type(content)}; send {example}")
    return content


def sample_from_json(item: object, inputs: Mapping[str, Input], max_bytes: int) -> dict[str, Payload]:
    """Turn one JSON sample into payloads: {name: payload}.

    Raises: InputError or UnknownField, naming the modality.
    """
    if not isinstance(item, dict):
        raise InputError(
            "samples", f"expected an object such as {{{next(iter(inputs))!r}: ...}}, got {json_type(item)}"
        )
    for name in item:
        check_known(name, inputs)
    there = without_empty(item)
    return without_empty({name: payload_from_json(name, there[name], inputs[name], max_bytes) for name in there})


def split_options(
    content: Mapping[str, Any], others: tuple[str, ...], options: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the members of an object into the other fields and the options; empty ones are left out.

    Raises: UnknownField.
    """
    for name in content:
        check_known(name, (*others, *options))
    members = without_empty(content)
    return (
        {name: value for name, value in members.items() if name not in options},
        {name: value for name, value in members.items() if name in options},
    )


def parse_batch(body: bytes, kind: ContentType, max_items: int, max_values: int) -> tuple[list[Any], dict[str, Any]]:
    """Parse the body of /predict/batch into the samples, not yet checked, and the options.

    Raises: MalformedRequest, UnknownField, MissingInput, TooLarge or InputError, for faults of the whole body.
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
    """Convert a body to UTF-8 without a byte order mark, by its charset or else by its first bytes."""
    codec = kind.codec() if kind.charset else json.detect_encoding(body)
    if codec in ("utf-8", "utf-8-sig"):
        return body.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(codec).encode()
    except ValueError:
        raise MalformedRequest(BODY, f"expected {codec}, got other bytes; send UTF-8") from None


def _has_every_member(body: bytes, content: dict[str, Any]) -> bool:
    """Return True only if no member was lost to another of the same name: there are as many members as colons.

    False does not mean that one was lost: a text may hold a colon, and objects deeper than columns are not counted.
    """
    samples = content.get("samples")
    inner = sum(map(_count_members, samples)) if isinstance(samples, list) else 0
    return body.count(b":") == _count_members(content) + inner


def _count_members(sample: object) -> int:
    """Count the members of an object and of the objects right in it."""
    if not isinstance(sample, dict):
        return 0
    return len(sample) + sum(len(value) for value in sample.values() if isinstance(value, dict))


def _parse_with_nan(body: bytes, error: ValueError) -> Any:
    """Parse a body that orjson refused: it may be valid but for NaN. Anything else is refused with orjson's reason.

    Raises: MalformedRequest.
    """
    if b"NaN" in body:
        try:
            content = _parse_strictly(body)
            orjson.dumps(content)  # raises for lone surrogates, as orjson.loads does
            return content
        except (orjson.JSONEncodeError, ValueError) as again:
            said = str(again)
    else:
        said = str(error) if body.strip() else "it is empty"
    raise MalformedRequest(BODY, f"this is no JSON ({said}); let a JSON library write it, in UTF-8") from None


def _parse_strictly(body: bytes) -> Any:
    """Parse with the standard library, which sees every member; NaN becomes None.

    Raises: InputError, naming a repeated member; MalformedRequest; ValueError for what is no JSON.
    """
    try:
        return json.loads(
            body.decode(),
            object_pairs_hook=_object_without_repeats,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_null_for_nan,
        )
    except RecursionError:
        raise MalformedRequest(BODY, "the JSON is nested too deep; send an object of plain values") from None


def _object_without_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise repeated_field(
                name.encode(errors="replace").decode()
            )  # a lone surrogate cannot be written into the answer
        found[name] = value
    return found


def _integer(text: str) -> float:
    return int(text) if len(text) <= MAX_EXACT_DIGITS else float(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is more than a number holds")
    return number


def _null_for_nan(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no JSON")
