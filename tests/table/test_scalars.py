"""How single numbers and dates are read."""

from __future__ import annotations

import datetime

import pytest
from dateutil import parser
from hypothesis import given
from hypothesis import strategies as st

from mla_serve.table.scalars import NumberFormat, find_day_first, find_number_format, parse_date, parse_number

COMMA = NumberFormat(decimal_comma=True)


@pytest.mark.parametrize(
    ("text", "with_dot", "with_comma"),
    [
        ("12.5", 12.5, None),
        ("12,5", None, 12.5),
        ("1,234.5", 1234.5, None),
        ("1.234,5", None, 1234.5),
        ("1,234", 1234.0, 1.234),
        ("12,34,567", 1234567.0, None),
        ("1 234 567", 1234567.0, 1234567.0),
        ("1'234", 1234.0, 1234.0),
        ("0,123", None, 0.123),
        ("1,2,3", None, None),
        ("1,23", None, 1.23),
        ("12 0 255", None, None),
        ("+49 30 100123", None, None),
        (".5", 0.5, None),
        ("-3", -3.0, -3.0),
        ("(1,596.5)", -1596.5, None),
        ("(-3)", None, None),
        ("1e5", 1e5, 1e5),
        ("1e999", None, None),
        ("inf", None, None),
        ("10:30", None, None),
    ],
)
def test_a_number_is_read_in_the_notation_of_its_column_or_not_at_all(
    text: str, with_dot: float | None, with_comma: float | None
) -> None:
    assert (parse_number(text), parse_number(text, COMMA)) == (with_dot, with_comma)


@given(st.floats(-1e12, 1e12), st.booleans(), st.sampled_from(["", " kg", " €", " km/h", " °C", "%"]))
def test_a_number_that_is_written_is_read_again(number: float, comma: bool, unit: str) -> None:
    text = f"{number:,.4f}"
    text = text.translate(str.maketrans(".,", ",.")) if comma else text
    form = find_number_format({text + unit: 1})
    assert form.unit == unit.strip().lower()
    assert form.decimal_comma == comma
    assert parse_number(text + unit, form) == float(f"{number:.4f}")


def test_the_notation_is_that_of_most_numbers() -> None:
    assert find_number_format({"12.50": 199, "12,5": 1}) == NumberFormat()
    assert find_number_format({"12.50": 1, "12,5": 199, "no number": 7}) == COMMA
    assert find_number_format({"$1.50": 199, "1.50": 1}).unit == "$"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mar 2024", "2024-03-01"),
        ("10:30 May 2024", "2024-05-01T10:30"),
        ("05-Jan-22", "2022-01-05"),
        ("5 Apr 69", "1969-04-05"),
        ("5. Januar 2022", "2022-01-05"),
        ("12. März 2021", "2021-03-12"),
        ("Tue, 05 Mar 2024 10:00:00 GMT", "2024-03-05T10:00"),
        ("2024/1/5", "2024-01-05"),
        ("2024-01-05T10:00:00+02:00", "2024-01-05T08:00"),
        ("20240105", "2024-01-05"),
        ("20240105T1030", "2024-01-05T10:30"),
        ("20241305", None),
        ("2024-31-12", None),
        ("2024-02-30", None),
        ("15 Mar 10:30", None),
        ("0001-01-01T00:00+10:00", None),
        ("9999-12-31T23:00-10:00", None),
    ],
)
def test_a_date_is_read_the_same_on_every_day(text: str, expected: str | None) -> None:
    assert parse_date(text) == (datetime.datetime.fromisoformat(expected) if expected else None)


def test_what_a_date_lacks_is_not_taken_from_today(monkeypatch: pytest.MonkeyPatch) -> None:
    class LaterDay(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> LaterDay:
            return cls(2031, 7, 30, tzinfo=tz)

    before = parse_date("Feb 2024")
    monkeypatch.setattr(parser._parser.datetime, "datetime", LaterDay)
    assert parse_date("Feb 2024") == before == datetime.datetime(2024, 2, 1)


@given(st.dates(datetime.date(1969, 1, 1), datetime.date(2068, 12, 31)), st.sampled_from("./-"), st.booleans())
def test_day_and_month_are_never_swapped(day: datetime.date, mark: str, day_first: bool) -> None:
    text = day.strftime(f"%d{mark}%m{mark}%Y" if day_first else f"%m{mark}%d{mark}%Y")
    assert parse_date(text, day_first=day_first) == datetime.datetime.combine(day, datetime.time())
    short = text[:-4] + text[-2:]
    assert parse_date(short, day_first=day_first) == datetime.datetime.combine(day, datetime.time())
    if day.day > 12:
        assert parse_date(text, day_first=not day_first) is None


def test_whether_the_day_comes_first_is_told_by_most_dates() -> None:
    assert find_day_first({"31/12/2024": 9, "12/31/2024": 1}) is True
    assert find_day_first({"31/12/2024": 1, "12/31/2024": 9}) is False
    assert find_day_first({"1/2/2024": 1}) is None
    assert find_day_first({"1.2.2024": 1}) is True
