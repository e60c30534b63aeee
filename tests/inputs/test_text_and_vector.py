"""Text in any script, and lists of numbers."""

import dataclasses
import time
import types
import unicodedata

import numpy as np
import pytest
import tokenizers

from mla_serve.errors import InputError
from mla_serve.inputs import TextInput, VectorInput
from mla_serve.inputs.text import MARKS


def byte_tokenizer() -> str:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {"<pad>": 0} | {letter: i + 1 for i, letter in enumerate(sorted(alphabet))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return str(tokenizer.to_str())


PLAIN = TextInput(byte_tokenizer(), 16)
LATIN = TextInput(byte_tokenizer(), 16, transliterate=True)


def test_composed_and_decomposed_letters_are_the_same() -> None:
    np.testing.assert_array_equal(PLAIN.decode("caf\u00e9"), PLAIN.decode("cafe\u0301"))


def test_case_does_not_matter() -> None:
    np.testing.assert_array_equal(PLAIN.decode("SIEBEN"), PLAIN.decode("sieben"))


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\u200d\u2060\ufeff", "\u202e \u00a0", " " * 30_000 + "a"])
def test_a_text_that_shows_nothing_is_empty(text: str) -> None:
    """The model would answer what it says of nothing at all."""
    with pytest.raises(InputError, match="the text is empty; leave the field out"):
        PLAIN.decode(text)


@pytest.mark.parametrize(("text", "latin"), [("семь", "sem'"), ("επτά", "epta"), ("seven", "seven")])
def test_transliteration_brings_scripts_together(text: str, latin: str) -> None:
    np.testing.assert_array_equal(LATIN.decode(text), LATIN.decode(latin))


def test_long_texts_are_cut_and_short_ones_filled() -> None:
    assert (PLAIN.decode("a" * 500) != 0).all()
    assert (PLAIN.decode("ab")[0, 2:] == 0).all()


@pytest.mark.parametrize("text", ["2024", "true", '{"a": 1}', "\x00", "\u202eabc", "七", "👍", "a\u0300" * 50])
def test_any_text_is_text(text: str) -> None:
    assert PLAIN.decode(text).shape == (1, 16)
    assert LATIN.decode(text).shape == (1, 16)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InputError, match="surrogate"):
        PLAIN.decode("a\ud800b")


def test_a_text_that_is_too_long_is_cut_and_not_refused() -> None:
    text = "".join(chr(ord("a") + number % 26) for number in range(30_000))
    np.testing.assert_array_equal(PLAIN.decode(text), PLAIN.decode(text[:20_000]))
    short = dataclasses.replace(PLAIN, max_characters=3)
    np.testing.assert_array_equal(short.decode("abcdef"), short.decode("abc"))


def test_a_tokenizer_that_keeps_the_end_gets_the_end() -> None:
    tokenizer = tokenizers.Tokenizer.from_str(byte_tokenizer())
    tokenizer.enable_truncation(4, direction="left")
    ends = TextInput(tokenizer.to_str(), 4, max_characters=6, compose=False)
    np.testing.assert_array_equal(ends.decode("xxxxxxxxabcd"), ends.decode("abcd"))
    np.testing.assert_array_equal(ends.decode("\ufdfa" * 9 + "abcd"), ends.decode("abcd"))


@pytest.mark.parametrize("mark", ["\u0301", "\u0301\u0316", "\u0f73", "\u0f81", "\u0344"])
def test_marks_in_a_row_are_bounded_before_they_are_composed(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFC takes time that grows with the square of their number: 20,000 of U+0F73 take seconds."""
    composed: list[int] = []

    def normalize(form: str, text: str) -> str:
        composed.append(len(text))
        return unicodedata.normalize(form, text)

    counting = types.SimpleNamespace(normalize=normalize, combining=unicodedata.combining)
    monkeypatch.setattr("mla_serve.inputs.text.unicodedata", counting)
    PLAIN.normalise("e" + mark * 10_000 + "x")
    assert max(composed) <= 2 + MARKS


def test_marks_that_people_write_stay() -> None:
    text = "e" + "\u0301\u0316" * (MARKS // 2) + " tie\u0302\u0301ng Vie\u0323\u0302t \u0e19\u0e49\u0e33"
    assert PLAIN.normalise(text) == unicodedata.normalize("NFC", text).lower()


@pytest.mark.parametrize("character", ["\ufdfa", "\ufdfb", "👩", "\u3356", "한", "七", "ⅷ"])
@pytest.mark.parametrize("spec", [PLAIN, LATIN], ids=["plain", "latin"])
def test_what_a_text_unfolds_to_is_bounded(character: str, spec: TextInput) -> None:
    text = spec.normalise(character * 30_000)
    assert len(text) <= 80_000
    assert len(unicodedata.normalize("NFKC", text)) <= 80_000
    assert text.startswith(spec.normalise(character * 100))


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["\u0301\u0316", "\u0f73", "\ufdfa", "👩\u200d"])
def test_twice_the_text_takes_about_twice_the_time(mark: str) -> None:
    def seconds(count: int) -> float:
        spec = dataclasses.replace(LATIN, max_characters=10**6)
        start = time.thread_time()
        spec.decode("e" + mark * count)
        return time.thread_time() - start

    seconds(100)
    assert seconds(40_000) < 6 * seconds(20_000) + 0.05


@pytest.mark.parametrize("payload", [[1, 2.5, -3], (1, 2.5, -3), "[1, 2.5, -3]", "1 2.5 -3", "1, 2.5, -3", b"1 2.5 -3"])
def test_numbers_may_be_written_in_several_ways(payload: object) -> None:
    np.testing.assert_array_equal(VectorInput(3).decode(payload), [[1, 2.5, -3]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [[1, 2], [1, 2, 3, 4], [1, 2, float("nan")], [1, 2, float("inf")], [1, 2, 1e39], [1, 2, "3"], [1, 2, True], "a b c",
     "1,,2,3", "1, 2, 3,", ",1,2,3", "[1, 2", "[[1], 2, 3]", {"a": 1}, "[" * 10_000, [1, 2, 10**400]],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_anything_else_is_refused_saying_how_many_are_expected(payload: object) -> None:
    with pytest.raises(InputError, match=r"expected 3|for 3 numbers"):
        VectorInput(3).decode(payload)  # type: ignore[arg-type]
