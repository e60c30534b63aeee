"""Text in any script, and lists of numbers."""

import numpy as np
import pytest
import tokenizers

from mla_serve.errors import InputError, TooLarge
from mla_serve.inputs import TextInput, VectorInput


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


def test_characters_are_counted_before_anything_is_done_with_them() -> None:
    with pytest.raises(TooLarge, match="30,000 characters, at most 20,000"):
        PLAIN.decode("x" * 30_000)


@pytest.mark.parametrize("payload", [[1, 2.5, -3], (1, 2.5, -3), "[1, 2.5, -3]", "1 2.5 -3", "1, 2.5, -3", b"1 2.5 -3"])
def test_numbers_may_be_written_in_several_ways(payload: object) -> None:
    np.testing.assert_array_equal(VectorInput(3).decode(payload), [[1, 2.5, -3]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [[1, 2], [1, 2, 3, 4], [1, 2, float("nan")], [1, 2, float("inf")], [1, 2, 1e39], [1, 2, "3"], [1, 2, True], "a b c",
     "[1, 2", "[[1], 2, 3]", {"a": 1}, "[" * 10_000, [1, 2, 10**400]],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_anything_else_is_refused_saying_how_many_are_expected(payload: object) -> None:
    with pytest.raises(InputError, match=r"expected 3|for 3 numbers"):
        VectorInput(3).decode(payload)  # type: ignore[arg-type]
