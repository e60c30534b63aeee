"""Numbers, yes/no and dates as people write them. Each parser returns None for text that is none of its kind."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, ClassVar

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
TICKS = frozenset({"x", "✓", "✔", "☑"})
"""Marks in a list of boxes to tick; a box without a mark is an empty cell."""
CURRENCY = r"(?P<{}>[^\W\d_]{{1,3}}\.?|[^\w\s.,+\-'()]+)?"
NUMBER = re.compile(
    rf"{CURRENCY.format('before')}\s*(?P<sign>[-+]?)\s*{CURRENCY.format('inside')}\s*"
    r"(?P<digits>\d[\d.,' ]*|[.,]\d+)(?P<power>[eE][-+]?\d+)?\s*(?P<after>[^\d\s.,+\-'()]{1,8}[23]?\.?)?"
)
DIGITS = r"(?P<whole>\d*|[1-9]\d{{0,2}}(?:(?P<mark>[{0}' ])\d{{3}})(?:(?P=mark)\d{{3}})*|[1-9]\d?(?:{0}\d\d)+{0}\d{{3}})(?:{1}(?P<fraction>\d*))?"
WITH_DOT, WITH_COMMA = re.compile(DIGITS.format(",", r"\.")), re.compile(DIGITS.format(r"\.", ","))
"""Digits with a decimal dot or comma, and marks between groups of three: 1,234,567.8, 1 234.5, or the Indian 12,34,567."""
PHONE_NUMBER = re.compile(r"\+\d[\d ()/-]{6,}|0\d+ \d[\d ]{4,}")
NUMERIC_DATE = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?=$|[ T,])")
YEAR_FIRST = re.compile(r"(\d{4})([./-])(\d{1,2})\2(\d{1,2})(?=$|[ T])")
WITHOUT_MARKS = re.compile(r"((?:19|20)\d\d)()(\d\d)(\d\d)(?=$|T)")
MONTHS = (
    ("jan", "january", "januar", "jän", "jänner"),
    ("feb", "february", "februar"),
    ("mar", "march", "mär", "märz", "maerz"),
    ("apr", "april"),
    ("may", "mai"),
    ("jun", "june", "juni"),
    ("jul", "july", "juli"),
    ("aug", "august"),
    ("sep", "sept", "september"),
    ("oct", "october", "okt", "oktober"),
    ("nov", "november"),
    ("dec", "december", "dez", "dezember"),
)
"""Names of the months in English and German, in lower case."""
_NAMES = "|".join(name for names in MONTHS for name in names)
NAMED_DATE = re.compile(
    rf"(?=.*\b({_NAMES})\b).*\d{{4}}.*|\d{{1,2}}[-. ]+({_NAMES})\.?[-. ]+\d\d(?![\d:]).*", re.IGNORECASE
)
FIRST_YEAR = 1969  # of a year that is written with two digits, as POSIX reads it: 69 is 1969, 68 is 2068
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


@dataclass(frozen=True)
class _Written:
    """The parts of a number as it is written. digits: with their marks; unit: in lower case."""

    sign: str
    digits: str
    power: str
    unit: str


def find_number_format(texts: Mapping[str, int]) -> NumberFormat:
    """Return how most of these numbers are written. Args: texts, with how often each occurs; some may be no numbers."""
    found = [(number, count) for text, count in texts.items() if (number := _take_apart(text))]
    dots = sum(count for number, count in found if WITH_DOT.fullmatch(number.digits))
    commas = sum(count for number, count in found if WITH_COMMA.fullmatch(number.digits))
    units: Counter[str] = Counter()
    for number, count in found:
        units[number.unit] += count
    unit = min(units, key=lambda unit: (-units[unit], unit), default="")
    pattern = WITH_COMMA if commas > dots else WITH_DOT
    grouped = any(_has_groups(number.digits, pattern) for number, _ in found)
    return NumberFormat(commas > dots, unit, grouped)


def parse_number(text: str, form: NumberFormat = NumberFormat()) -> float | None:
    """Read a finite number that may have separators of thousands, and the unit of its column."""
    number = _take_apart(text)
    if number is None or number.unit not in ("", form.unit):
        return None
    match = (WITH_COMMA if form.decimal_comma else WITH_DOT).fullmatch(number.digits)
    if match is None:
        return None
    whole = re.sub(r"\D", "", match["whole"])
    value = float(f"{number.sign}{whole or '0'}.{match['fraction'] or '0'}{number.power}")
    return value if math.isfinite(value) else None


def looks_like_number(text: str) -> bool:
    """Return whether it is a number in some notation."""
    number = _take_apart(text)
    return bool(number and (WITH_DOT.fullmatch(number.digits) or WITH_COMMA.fullmatch(number.digits)))


def is_phone_number(text: str) -> bool:
    """Return whether it is a phone number with a country code, or with a leading zero and blanks."""
    return PHONE_NUMBER.fullmatch(text) is not None


def _take_apart(text: str) -> _Written | None:
    """Find the parts of a number; in accounts, one in parentheses is negative."""
    if len(text) > LONGEST:
        return None
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2019", "'").strip()
    negative = plain.startswith("(") and plain.endswith(")")
    match = NUMBER.fullmatch(plain[1:-1].strip() if negative else plain)
    if match is None or (negative and match["sign"]):
        return None
    before, after = match["before"] or match["inside"] or "", match["after"] or ""
    if (match["before"] and match["inside"]) or (before and after):
        return None
    if (before and not _is_currency(before)) or (after and not _is_unit(after)):
        return None
    return _Written(
        "-" if negative else match["sign"], match["digits"].strip(), match["power"] or "", (before or after).lower()
    )


def _is_currency(text: str) -> bool:
    return text == "%" or text.lower() in CURRENCIES or all(unicodedata.category(letter) == "Sc" for letter in text)


def _is_unit(text: str) -> bool:
    """Return whether a currency, or a unit such as kg, km/h or °C."""
    return _is_currency(text) or text[0].isalpha() or text[0] == "°"


def _has_groups(digits: str, pattern: re.Pattern[str]) -> bool:
    """Return whether the whole part has marks between groups of digits."""
    match = pattern.fullmatch(digits)
    return bool(match and re.search(r"\D", match["whole"]))


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
    return True if word in YES | TICKS | {"1"} else False if word in NO | {"0"} else None


def parse_date(cell: object, *, day_first: bool = False) -> datetime | None:
    """Read a date, with a time or without. A time zone is converted to UTC and left out."""
    if isinstance(cell, date) and not isinstance(cell, datetime):
        return datetime(cell.year, cell.month, cell.day)
    found = _parse_date_text(cell.strip(), day_first) if isinstance(cell, str) else cell
    if not isinstance(found, datetime):
        return None
    try:
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except OverflowError:  # such as the year 1 in a zone east of UTC
        return None


def find_day_first(texts: Mapping[str, int]) -> bool | None:
    """Return whether days come first in most dates such as 31/12/2024; None where no date tells.

    Args: texts, with how often each occurs.
    """
    matches = [(match, count) for text, count in texts.items() if (match := NUMERIC_DATE.match(text))]
    days = sum(count for match, count in matches if int(match[1]) > 12)
    months = sum(count for match, count in matches if int(match[3]) > 12)
    if matches and days == months:
        dots = all(match[2] == "." for match, _ in matches)
        return True if dots else None  # with dots, the day comes first everywhere
    return days > months


def _parse_date_text(text: str, day_first: bool) -> datetime | None:
    if len(text) > LONGEST:
        return None
    try:
        plain = _with_year_first(text, day_first) or (text if NAMED_DATE.fullmatch(text) else None)
        if plain is None:
            return None
        found: datetime = _parser().parse(plain, default=datetime(1, 1, 1))  # what is not written is the first, or 0
    except (ValueError, OverflowError, Warning):
        return None
    return found


def _with_year_first(text: str, day_first: bool) -> str | None:
    """Write a date of digits as 2024-12-31, as dateutil would swap day and month where that alone gives a date.

    Returns: None for any other text. Raises: ValueError if there is no such day.
    """
    if match := YEAR_FIRST.match(text) or WITHOUT_MARKS.match(text):
        year, month, day = int(match[1]), int(match[3]), int(match[4])
    elif match := NUMERIC_DATE.match(text):
        year = int(match[4]) if len(match[4]) == 4 else _full_year(int(match[4]))
        day, month = (int(match[1]), int(match[3])) if day_first else (int(match[3]), int(match[1]))
    else:
        return None
    return date(year, month, day).isoformat() + text[match.end() :]


def _full_year(year: int) -> int:
    return FIRST_YEAR + (year - FIRST_YEAR) % 100


@functools.cache
def _parser() -> Any:
    """Return a parser of dates that reads the same on every day and knows the MONTHS."""
    from dateutil import parser

    class Names(parser.parserinfo):  # type: ignore[misc]  # dateutil has no types
        MONTHS: ClassVar = list(MONTHS)

        def convertyear(self, year: int, century_specified: bool = False) -> int:
            return _full_year(year) if year < 100 and not century_specified else year

    return parser.parser(Names())
