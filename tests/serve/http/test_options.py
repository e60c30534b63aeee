"""The options of a request: numbers as programs write them, the URL and the body, and what is refused."""

from __future__ import annotations

import pytest

from mla_serve.errors import InputError, UnknownField
from mla_serve.serve.http.options import (
    MAX_NUMBER_LENGTH,
    merge_options,
    options_from_query,
    parse_number_options,
)


def test_a_number_may_be_as_long_as_a_program_writes_it() -> None:
    longest = "0." + "3" * (MAX_NUMBER_LENGTH - 2)
    assert parse_number_options({"coverage": longest, "fusion": "3"}) == {"coverage": float(longest), "fusion": "3"}
    assert parse_number_options({"coverage": f" {longest}\n"}) == {"coverage": float(longest)}
    with pytest.raises(InputError, match=r"^coverage: got '0\.33333"):
        parse_number_options({"coverage": longest + "3"})


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("top_k", "two", "got 'two'; send a whole number from 1"),
        ("top_k", "x" * 50, f"got '{'x' * 21}; send a whole number from 1"),
        ("coverage", "90%", "got '90%'; send a number between 0 and 1, such as 0.9"),
    ],
)
def test_a_text_that_is_no_number_is_quoted_with_what_to_send(option: str, value: str, what: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_number_options({option: value})
    assert (refused.value.field, refused.value.message) == (option, what)


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("top_k", 0, "got 0; send a whole number from 1"),
        ("top_k", 1.5, "got 1.5; send a whole number from 1"),
        ("top_k", "3", "got a string; send a whole number from 1"),
        ("top_k", True, "got true or false; send a whole number from 1"),
        ("coverage", 1, "got 1; send a number between 0 and 1, such as 0.9"),
        ("coverage", 0.0, "got 0.0; send a number between 0 and 1, such as 0.9"),
        ("coverage", [1], "got a list; send a number between 0 and 1, such as 0.9"),
        ("fusion", 3, "expected the name of a rule, got a number; GET /model lists the rules"),
    ],
)
def test_an_option_that_is_no_such_value_is_quoted_with_what_to_send(option: str, value: object, what: str) -> None:
    with pytest.raises(InputError) as refused:
        merge_options({}, {option: value})
    assert (refused.value.field, refused.value.message) == (option, what)


def test_options_come_from_the_url_or_the_body_and_not_from_both() -> None:
    options = merge_options({"top_k": 3.0}, {"fusion": " paper ", "coverage": 0.5})
    assert (options.top_k, options.fusion, options.coverage) == (3, "paper", 0.5)
    assert type(options.top_k) is int
    none = merge_options({"top_k": None}, {"fusion": None, "coverage": None})
    assert (none.top_k, none.fusion, none.coverage) == (None, None, None)
    with pytest.raises(InputError, match=r"^top_k: the option stands in the URL and in the body; send it once$"):
        merge_options({"top_k": 1}, {"top_k": 1})


def test_a_query_string_holds_known_options_once_and_not_too_many() -> None:
    assert options_from_query(b"top_k=3&fusion=a%20b&coverage=", ("top_k", "fusion", "coverage")) == {
        "top_k": 3.0,
        "fusion": "a b",
    }
    assert options_from_query(b"", ("top_k",)) == {}
    assert options_from_query(b"fusion=&fusion=paper", ("fusion",)) == {"fusion": "paper"}
    with pytest.raises(InputError, match=r"^fusion: the field was sent more than once"):
        options_from_query(b"fusion=a&fusion=b", ("fusion",))
    with pytest.raises(UnknownField, match=r"^k: the URL takes top_k, fusion; send everything else in the body$"):
        options_from_query(b"k=1", ("top_k", "fusion"))
    with pytest.raises(UnknownField, match=r"^k: the URL of this path takes no options; leave it out$"):
        options_from_query(b"k=1", ())
    with pytest.raises(UnknownField) as refused:
        options_from_query(b"x" * 101 + b"=1", ("top_k",))
    assert refused.value.field == "x" * 100
