"""The rules for fields that hold alike for a form, for JSON and for the query string.

Every name must be known and may occur once. A field that is empty, null or NaN counts as not sent, and so does a cell of
a column; a modality whose cells are all missing counts as not sent. No field is ever taken as a path or fetched as a URL.

form          forms.py      each part, or each pair of a urlencoded body
JSON          json_body.py  each member of the object
query string  options.py    each pair; options only
"""

from __future__ import annotations

import base64
import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from mla_serve.errors import InputError, TooLarge, UnknownField
from mla_serve.inputs import ColumnsInput, Input, Payload
from mla_serve.serve.problems import MalformedRequest

BODY = "body"
DATA_URL = "data:"
MAX_EMPTY_FIELDS = 100  # empty fields beyond the known ones; each costs time
EXPECTED_VALUES = {
    "file": "the file's content in base64",
    "text": "a string",
    "numbers": "a list of numbers",
    "cells": "an object with a member for each column",
}


@dataclasses.dataclass(frozen=True)
class FieldNames:
    """The names that the fields of a form may have: modalities, options, and MODALITY.COLUMN for each column of a modality.

    A modality's name has no full stop, so the first one in a field's name ends it, whatever the column is called.
    """

    inputs: Mapping[str, Input]
    options: tuple[str, ...] = ()

    @functools.cached_property
    def plain(self) -> tuple[str, ...]:
        """The names of modalities and options."""
        return (*self.inputs, *self.options)

    def __len__(self) -> int:
        """Count the names."""
        columns = (len(reader.columns) for reader in self.inputs.values() if isinstance(reader, ColumnsInput))
        return len(self.plain) + sum(columns)

    def find(self, name: str) -> str:
        """Return a field's name as the model has it; some clients escape quotes and line breaks in it as a URL does.

        Raises: UnknownField; InputError for a column that the model does not have.
        """
        if name in self.plain:
            return name
        modality, dot, column = name.partition(".")
        reader = self.inputs.get(modality)
        if not dot or not isinstance(reader, ColumnsInput):
            raise unknown_field(name, self.plain)
        known = column if column in reader.by_name or "%" not in column else unquote(column)
        reader.check_column(known, modality)
        return f"{modality}.{known}"


def parse_urlencoded(content: bytes, charset: str, where: str, known: int) -> list[tuple[str, str]]:
    """Split application/x-www-form-urlencoded, a query string or a body, into names and values.

    Args: where, the field that errors name; known, how many names are known, which bounds how many pairs are read.
    Raises: MalformedRequest.
    """
    if not content:
        return []
    try:
        return parse_qsl(
            content.decode(charset),
            keep_blank_values=True,
            encoding=charset,
            errors="strict",
            max_num_fields=known + MAX_EMPTY_FIELDS,
        )
    except UnicodeDecodeError:
        raise MalformedRequest(where, f"expected {charset}, got other bytes; with curl, use --data-urlencode") from None
    except ValueError:
        raise MalformedRequest(
            where, f"more than {known + MAX_EMPTY_FIELDS} fields; send each that is needed once"
        ) from None


def check_known(name: str, known: Collection[str]) -> None:
    """Refuse a name that the model does not know."""
    if name not in known:
        raise unknown_field(name, known)


def unknown_field(name: str, known: Iterable[str]) -> UnknownField:
    """Return the error for a name that the model does not know."""
    return UnknownField(name[:100], f"no such field; this model reads {', '.join(known)}")


def check_not_repeated(name: str, taken: Iterable[str]) -> None:
    """Refuse a name that was sent before."""
    if name in taken:
        raise repeated_field(name)


def repeated_field(name: str) -> InputError:
    """Return the error for a field that was sent more than once."""
    return InputError(name, "the field was sent more than once; send it once")


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the fields that count as not sent. The JSON parser has turned NaN into None (json_body.py)."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def payload_from_json(name: str, value: Any, reader: Input, max_bytes: int) -> Payload | None:
    """Turn a JSON value into a payload: a file is a base64 string, a text a string, a vector a list of numbers, columns an object.

    Returns: None where nothing is left without the missing cells.
    Raises: InputError.
    """
    if isinstance(reader, ColumnsInput):
        if isinstance(value, dict):
            return reader.present_cells(value, name) or None
    elif reader.sent_as == "numbers":
        if isinstance(value, int | float) and not isinstance(value, bool):
            return [value]
        if isinstance(value, list):
            return value
    elif isinstance(value, str):
        return decode_base64(name, value, max_bytes) if reader.sent_as == "file" else value
    expected = f"expected {EXPECTED_VALUES[reader.sent_as]}"
    raise InputError(name, f"{expected}, got {json_type(value)}; leave the field out if there is none")


def decode_base64(name: str, text: str, max_bytes: int) -> bytes:
    """Decode base64 in the forms that clients write.

    Accepted are the standard and the URL-safe alphabet, with or without padding, with or without line breaks, and a
    data: URL around it. Most clients write the one form that Python decodes, so that is tried first, and only its failure
    pays for a copy of the text in normal form. For the same reason a text that looks too long is measured again without
    its line breaks: a limit that counted them would refuse a file that is small enough.

    Raises: TooLarge; InputError.
    """
    if text[: len(DATA_URL)].lower() == DATA_URL:
        head, _, text = text.partition(",")
        text = unquote(text) if "%" in text else text  # a URL may escape any character
        if not head.lower().endswith(";base64"):
            raise InputError(name, "the data: URL is not in base64; send data:TYPE;base64,CONTENT or the base64 alone")
    if _decoded_size(text) > max_bytes:
        text = _padded(text)  # without the line breaks
        if _decoded_size(text) > max_bytes:
            raise part_too_large(name, max_bytes)
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        try:
            content = base64.b64decode(_padded(text), validate=True)
        except ValueError:
            raise InputError(name, f"expected {EXPECTED_VALUES['file']}, got a string that is no base64") from None
    if not content:
        raise InputError(name, "the file is empty; leave the field out if there is none")
    return content


def _decoded_size(text: str) -> int:
    return 3 * len(text) // 4 - text[-2:].count("=")


def _padded(text: str) -> str:
    """Rewrite base64 in the one form that Python decodes."""
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    return text + "=" * (-len(text) % 4)


def part_too_large(name: str, limit: int) -> TooLarge:
    """Return the error for a part that is too large."""
    return TooLarge(name, f"more than {limit:,} bytes, which is the most that is read of one part; send a smaller one")


def json_type(value: object) -> str:
    """Return the name that JSON has for the type of a value."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
