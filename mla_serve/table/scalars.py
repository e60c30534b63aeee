"""Numbers, yes/no and dates as people write them. Each parser returns None for text that is none of its kind."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

NOT_AVAILABLE = frozenset(
    {"na", "n/a", "n.a.", "#n/a", "nan", "nat", "null", "none", "<na>", "-", "--", "?", "unknown", "missing"}
)
"""Words for a missing cell, in lower case, in columns of numbers or dates."""
YES = frozenset(
    {
        "yes",
        "y",
        "true",
        "t",
        "on",
        "oui",
        "vrai",
        "ja",
        "wahr",
        "si",
        "sí",
        "sì",
        "sim",
        "tak",
        "ano",
        "да",
        "是",
        "はい",
    }
)
NO = frozenset(
    {
        "no",
        "n",
        "false",
        "f",
        "off",
        "non",
        "faux",
        "nein",
        "falsch",
        "nee",
        "não",
        "nej",
        "nie",
        "ne",
        "нет",
        "否",
        "いいえ",
    }
)
CURRENCIES = frozenset({"usd", "eur", "gbp", "inr", "rs", "rs.", "chf", "jpy", "cny", "sek", "nok", "dkk", "pln", "kr"})
UNIT = r"(?P<{}>[^\W\d_]{{1,3}}\.?|[^\w\s.,+\-'()]+)?"
NUMBER = re.compile(
    rf"{UNIT.format('before')}\s*(?P<sign>[-+]?)\s*{UNIT.format('inside')}\s*"
    rf"(?P<digits>\d[\d.,' ]*|[.,]\d+)(?P<power>[eE][-+]?\d+)?\s*{UNIT.format('after')}"
)
COMMA_GROUPS, DOT_GROUPS = r"\d{1,3}(,\d{3})+", r"\d{1,3}(\.\d{3})+"
MONTH = re.compile(r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE)
NUMERIC_DATE = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?=$|[ T,])")
YEAR_FIRST = re.compile(r"\d{4}([./-])\d{1,2}\1\d{1,2}(?=$|[ T])")
LONGEST = 40  # characters of a number or date


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written. unit: a currency or %; grouped: with separators of thousands."""

    decimal_comma: bool = False
    unit: str = ""
    grouped: bool = False


def is_not_available(cell: object) -> bool:
    """Return whether a cell is a word for a missing number or date."""
    return isinstance(cell, str) and cell.strip().lower() in NOT_AVAILABLE


def find_number_format(texts: Iterable[str]) -> NumberFormat | None:
    """Return how these numbers are written; None if they are not all numbers, or contradict each other."""
    found = [_match_number(text) for text in texts]
    if not found or any(match is None for match in found):
        return None
    digits = [_digits(match) for match in found if match]
    units = {unit for match in found if match for unit in (_unit(match),)}
    commas, dots = any(map(_has_decimal_comma, digits)), any(map(_has_decimal_dot, digits))
    if len(units) > 1 or (commas and dots):
        return None
    grouped = any(_has_separators(text, decimal="," if commas else ".") for text in digits)
    return NumberFormat(commas, units.pop(), grouped)


def parse_number(text: str, form: NumberFormat = NumberFormat()) -> float | None:
    """Read a number that may have separators of thousands, and the unit of its column."""
    match = _match_number(text)
    if match is None or _unit(match) not in ("", form.unit):
        return None
    decimal, group = (",", ".") if form.decimal_comma else (".", ",")
    digits = _digits(match).replace(group, "").replace(decimal, ".")
    try:
        return float(f"{match['sign']}{digits}{match['power'] or ''}")
    except ValueError:
        return None


def looks_like_number(text: str) -> bool:
    """Return whether it is a number in some notation."""
    return _match_number(text) is not None


def _match_number(text: str) -> re.Match[str] | None:
    if len(text) > LONGEST:
        return None
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2019", "'").strip()
    match = NUMBER.fullmatch(plain)
    units = [match[part] for part in ("before", "inside", "after") if match[part]] if match else []
    return match if len(units) <= 1 and all(map(_is_unit, units)) else None


def _is_unit(text: str) -> bool:
    return text == "%" or text.lower() in CURRENCIES or all(unicodedata.category(letter) == "Sc" for letter in text)


def _unit(match: re.Match[str]) -> str:
    return (match["before"] or match["inside"] or match["after"] or "").lower()


def _digits(match: re.Match[str]) -> str:
    return str(match["digits"]).replace(" ", "").replace("'", "")


def _has_decimal_comma(digits: str) -> bool:
    """Return whether a comma in it can only be a decimal comma: not as in 1,234 or 1,234.5."""
    return ("," in digits and not re.fullmatch(COMMA_GROUPS + r"(\.\d*)?", digits)) or digits.count(".") > 1


def _has_decimal_dot(digits: str) -> bool:
    """Return whether a dot in it can only be a decimal dot."""
    return ("." in digits and not re.fullmatch(DOT_GROUPS + r"(,\d*)?", digits)) or digits.count(",") > 1


def _has_separators(digits: str, decimal: str) -> bool:
    return any(mark in digits for mark in ".," if mark != decimal)


def has_leading_zero(texts: Iterable[str]) -> bool:
    """Return whether one of them is written as 01234, as codes are."""
    return any(re.fullmatch(r"0\d+", text) for text in texts)


def are_yes_no(texts: Collection[str]) -> bool:
    """Return whether these are words for yes and for no, and both occur."""
    words = {text.lower() for text in texts}
    return words <= YES | NO and bool(words & YES) and bool(words & NO)


def parse_yes_no(cell: object) -> bool | None:
    """Read a truth value, 1 or 0, or a word for yes or no."""
    if isinstance(cell, bool | int | float):
        return bool(cell) if cell in (0, 1) else None
    word = str(cell).strip().lower()
    return True if word in YES | {"1"} else False if word in NO | {"0"} else None


def parse_date(cell: object, *, day_first: bool = False) -> datetime | None:
    """Read a date, with a time or without. A time zone is converted to UTC and left out."""
    if isinstance(cell, date) and not isinstance(cell, datetime):
        return datetime(cell.year, cell.month, cell.day)
    found = _parse_date_text(cell.strip(), day_first) if isinstance(cell, str) else cell
    if not isinstance(found, datetime):
        return None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def _parse_date_text(text: str, day_first: bool) -> datetime | None:
    with_month = MONTH.search(text) and re.search(r"\d{4}", text)
    if len(text) > LONGEST or not (NUMERIC_DATE.match(text) or YEAR_FIRST.match(text) or with_month):
        return None
    from dateutil import parser

    try:
        found: datetime = parser.parse(text, dayfirst=day_first and not YEAR_FIRST.match(text))
    except (ValueError, OverflowError, Warning):
        return None
    return found


def find_day_first(texts: Iterable[str]) -> bool | None:
    """Return whether days come first in dates such as 31/12/2024; None where no date tells."""
    matches = [match for text in texts if (match := NUMERIC_DATE.match(text))]
    day, month = any(int(match[1]) > 12 for match in matches), any(int(match[3]) > 12 for match in matches)
    if matches and day == month:
        return True if all(match[2] == "." for match in matches) else None  # with dots, the day comes first everywhere
    return day
