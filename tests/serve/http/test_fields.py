"""The rules for fields: base64 as clients write it, and what is refused."""

from __future__ import annotations

import base64

import pytest

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import InputError, TooLarge, UnknownField
from mla_serve.inputs import Input
from mla_serve.serve.http.fields import (
    MAX_EMPTY_FIELDS,
    check_known,
    check_not_repeated,
    decode_base64,
    json_type,
    parse_urlencoded,
    payload_from_json,
    without_empty,
)
from mla_serve.serve.problems import MalformedRequest


def spellings(content: bytes) -> dict[str, str]:
    """Write bytes in base64 in the ways of different clients."""
    plain = base64.b64encode(content).decode()
    for_urls = base64.urlsafe_b64encode(content).decode()
    return {
        "plain": plain,
        "unpadded": plain.rstrip("="),
        "padded too much": plain.rstrip("=") + "====",
        "for URLs": for_urls,
        "for URLs, unpadded": for_urls.rstrip("="),
        "in lines": "\r\n".join(plain[at : at + 3] for at in range(0, len(plain), 3)) + "\n",
        "data URL": f"data:image/png;base64,{plain}",
        "DATA URL": f"DATA:;BASE64,{plain}",
        "escaped data URL": "data:;base64," + plain.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    }


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 60, 61, 62])
@pytest.mark.parametrize("spelling", list(spellings(b"x")))
def test_base64_is_decoded_in_every_spelling_up_to_the_limit(size: int, spelling: str) -> None:
    content = bytes(251 + at % 5 for at in range(size))  # full of + and /
    text = spellings(content)[spelling]
    assert decode_base64("image", text, size) == content
    with pytest.raises(TooLarge, match=rf"^image: more than {size - 1} bytes"):
        decode_base64("image", text, size - 1)


def test_only_padding_is_taken_off_the_end_of_base64() -> None:
    assert decode_base64("image", "AA\nAX", 3) == b"\0\0\x17"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a?b", "got a string that is no base64"),
        ("a", "got a string that is no base64"),
        ("=abc", "got a string that is no base64"),
        ("", "the file is empty; leave the field out if there is none"),
        ("data:;base64,", "the file is empty; leave the field out if there is none"),
        ("data:image/png,abcd", "the data: URL is not in base64; send data:TYPE;base64,CONTENT or the base64 alone"),
        ("data:image/png;base64", "the file is empty; leave the field out if there is none"),
    ],
)
def test_what_is_no_base64_is_refused_with_the_reason(text: str, what: str) -> None:
    with pytest.raises(InputError) as refused:
        decode_base64("image", text, 100)
    assert refused.value.field == "image"
    assert what in refused.value.message


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "true or false"),
        (1, "a number"),
        (1.5, "a number"),
        ("a", "a string"),
        ([1], "a list"),
        ({"a": 1}, "an object"),
    ],
)
def test_types_are_called_as_in_json(value: object, name: str) -> None:
    assert json_type(value) == name


@pytest.fixture
def readers(predictor: Predictor) -> dict[str, Input]:
    inputs = predictor.bundle.inputs
    return {"file": inputs["image"], "text": inputs["text"], "numbers": inputs["vector"]}


def test_a_value_in_json_becomes_what_its_modality_takes(readers: dict[str, Input]) -> None:
    assert payload_from_json("a", "YWJj", readers["file"], 10) == b"abc"
    assert payload_from_json("a", "YWJj", readers["text"], 10) == "YWJj"
    assert payload_from_json("a", [1, 2.5], readers["numbers"], 10) == [1, 2.5]
    assert payload_from_json("a", 7, readers["numbers"], 10) == [7]
    assert payload_from_json("a", 0.5, readers["numbers"], 10) == [0.5]


@pytest.mark.parametrize(
    ("kind", "value", "what"),
    [
        ("file", 5, "expected the file's content in base64, got a number; leave the field out if there is none"),
        ("file", ["YWJj"], "expected the file's content in base64, got a list; leave the field out if there is none"),
        ("text", {"a": 1}, "expected a string, got an object; leave the field out if there is none"),
        ("text", True, "expected a string, got true or false; leave the field out if there is none"),
        ("numbers", "1 2", "expected a list of numbers, got a string; leave the field out if there is none"),
        ("numbers", True, "expected a list of numbers, got true or false; leave the field out if there is none"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_expected(
    kind: str, value: object, what: str, readers: dict[str, Input]
) -> None:
    with pytest.raises(InputError) as refused:
        payload_from_json("a", value, readers[kind], 10)
    assert (refused.value.field, refused.value.message) == ("a", what)


def test_what_is_null_or_empty_was_not_sent() -> None:
    assert without_empty({"a": None, "b": "", "c": 0, "d": [], "e": False, "f": " "}) == {
        "c": 0,
        "d": [],
        "e": False,
        "f": " ",
    }


def test_a_field_that_is_there_or_not_known_is_refused_by_its_name() -> None:
    check_not_repeated("a", ["b"])
    check_known("a", ["a", "b"])
    with pytest.raises(InputError, match=r"^a: the field was sent more than once; send it once$"):
        check_not_repeated("a", iter(["b", "a"]))
    with pytest.raises(UnknownField, match=r"^c: no such field; this model reads a, b$"):
        check_known("c", ["a", "b"])
    with pytest.raises(UnknownField) as refused:
        check_known("x" * 101, ["a"])
    assert refused.value.field == "x" * 100


def test_pairs_are_split_in_their_character_set_up_to_a_number() -> None:
    assert parse_urlencoded(b"a=1&b=&a=%E4", "latin-1", "body", 2) == [("a", "1"), ("b", ""), ("a", "ä")]
    assert parse_urlencoded(b"", "utf-8", "body", 2) == []
    assert len(parse_urlencoded(b"a=" + b"&a=" * (MAX_EMPTY_FIELDS + 1), "utf-8", "body", 2)) == MAX_EMPTY_FIELDS + 2
    with pytest.raises(
        MalformedRequest, match=rf"^query: more than {MAX_EMPTY_FIELDS + 2} fields; send each that is needed once"
    ):
        parse_urlencoded(b"a=" + b"&a=" * (MAX_EMPTY_FIELDS + 2), "utf-8", "query", 2)
    for bad in (b"a=\xff", b"a=%ff"):
        with pytest.raises(
            MalformedRequest, match=r"^body: expected utf-8, got other bytes; with curl, use --data-urlencode"
        ):
            parse_urlencoded(bad, "utf-8", "body", 2)
