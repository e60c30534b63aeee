"""The options of a request: read from the URL or the body, checked, merged.

An option stands in the URL or in the body, not in both. The URL and a form hold texts, so the numbers among them are parsed
first. JSON has numbers. From there on every option is checked alike.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from mla_serve.errors import InputError, UnknownField
from mla_serve.serve.http.fields import check_not_repeated, json_type, parse_urlencoded

QUERY = "query"
# A float has 17 significant digits. Python would parse millions, slowly.
MAX_NUMBER_LENGTH = 100
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NUMBER_OPTIONS = {"top_k": "a whole number from 1", "coverage": "a number between 0 and 1, such as 0.9"}


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a request: labels to list, fusion rule, coverage of the prediction set; None takes the default."""

    top_k: int | None = None
    fusion: str | None = None
    coverage: float | None = None


OPTIONS = tuple(field.name for field in dataclasses.fields(Options))


def options_from_query(query: bytes, known: Collection[str]) -> dict[str, Any]:
    """Read the options in a query string.

    Raises: UnknownField for anything else, since URLs are logged and a user's text must not be; InputError.
    """
    found: dict[str, str] = {}
    for name, value in parse_urlencoded(query, "utf-8", QUERY, len(known)):
        if name not in known:
            options = f"the URL takes {', '.join(known)}; send everything else in the body"
            raise UnknownField(name[:100], options if known else "the URL of this path takes no options; leave it out")
        if value:
            check_not_repeated(name, found)
            found[name] = value
    return parse_number_options(found)


def parse_number_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Parse the numbers among options that were sent as text, in the URL or in a form: 3, 3.0, +3, .5, 1e-5.

    Raises: InputError.
    """
    return {name: _number_of_text(name, text) if name in NUMBER_OPTIONS else text for name, text in options.items()}


def _number_of_text(name: str, text: str) -> float:
    stripped = text.strip()
    if len(stripped) > MAX_NUMBER_LENGTH or not NUMBER.fullmatch(stripped):
        raise InputError(name, f"got {_short(text)}; send {NUMBER_OPTIONS[name]}")
    return float(stripped)


def merge_options(query: Mapping[str, Any], body: Mapping[str, Any]) -> Options:
    """Check the options of a request and merge those of its URL with those of its body.

    Raises: InputError for an option that is in both, or that has a value of the wrong type or range.
    """
    for name in query:
        if name in body:
            raise InputError(name, "the option stands in the URL and in the body; send it once")
    values = {**query, **body}
    return Options(_top_k(values.get("top_k")), _fusion(values.get("fusion")), _coverage(values.get("coverage")))


def _top_k(value: Any) -> int | None:
    if value is None:
        return None
    number = _number("top_k", value)
    if number < 1 or not number.is_integer():
        raise InputError("top_k", f"got {_short(value)}; send {NUMBER_OPTIONS['top_k']}")
    return int(number)


def _coverage(value: Any) -> float | None:
    if value is None:
        return None
    number = _number("coverage", value)
    if not 0 < number < 1:
        raise InputError("coverage", f"got {_short(value)}; send {NUMBER_OPTIONS['coverage']}")
    return number


def _fusion(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value and value.strip()
    raise InputError("fusion", f"expected the name of a rule, got {json_type(value)}; GET /model lists the rules")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(name, f"got {json_type(value)}; send {NUMBER_OPTIONS[name]}")
    return float(value)


def _short(value: Any) -> str:
    return repr(value)[:22]
