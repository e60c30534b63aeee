"""Text: tokenize any script into ids of fixed length."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import unicodedata
from typing import ClassVar

import numpy as np
import tokenizers
from anyascii import anyascii

from mla_serve.errors import InputError
from mla_serve.inputs.base import Array, Corruptions, Input, Payload, SentAs, added_later, stored_in
from mla_serve.inputs.corruptions import dropped_characters, foreign_words, random_letters, swapped_characters, typos

PAD = 0  # id of padding; encoders mask it
MARKS = 30  # combining marks in a row that are kept, as in Unicode's stream-safe text format (UAX 15)
UNFOLDED = 4  # times the length of a text; decomposed or transliterated, ordinary scripts get no longer than that


@dataclasses.dataclass(frozen=True)
class TextInput(Input):
    """Text in any script: NFC, optionally Latin letters and lower case, then a tokenizer's ids.

    Fields: tokenizer, the JSON of a `tokenizers.Tokenizer` (kept in tokenizer.json); length in tokens, longer texts are
    cut (at the end that the tokenizer says), shorter ones padded with `pad`; transliterate, to Latin with
    anyascii; lowercase; max_characters, to which a text is cut first; compose, to NFC: off for a pretrained
    tokenizer, which has rules of its own.

    The time for a text is bounded. NFC takes time that grows with the square of the combining marks in a row, so marks
    after MARKS in a row are dropped. One character can become 18 in a tokenizer and 29 by transliteration, so a text is
    cut where it would unfold to more than UNFOLDED times max_characters.
    """

    tokenizer: str = dataclasses.field(metadata=stored_in("tokenizer.json"), repr=False)
    length: int
    transliterate: bool = False
    lowercase: bool = True
    max_characters: int = 20_000
    pad: int = added_later(PAD)
    compose: bool = added_later(True)

    kind: ClassVar[str] = "text"
    tensor: ClassVar[str] = "ids"
    dtype: ClassVar[type[np.generic]] = np.int64
    sent_as: ClassVar[SentAs] = "text"
    corruptions: ClassVar[Corruptions] = {
        "typos": typos,
        "dropped": dropped_characters,
        "swapped": swapped_characters,
        "letters": random_letters,
        "foreign": foreign_words,
    }

    @property
    def shape(self) -> tuple[int]:
        """(L,)."""
        return (self.length,)

    def decode(self, payload: Payload, field: str = "text") -> Array:
        """Decode a text into (1, L) int64; a longer text is cut as in training."""
        text = self.normalise(self._check(payload, field))
        ids = self._tokenizer.encode(text, add_special_tokens=True).ids[: self.length]
        row = np.full((1, self.length), self.pad, dtype=np.int64)
        row[0, : len(ids)] = ids
        return row

    def generate(self, generator: np.random.Generator) -> str:
        """Make a word of random letters."""
        return "".join(chr(code) for code in generator.integers(ord("a"), ord("z") + 1, 6))

    def generate_large(self, generator: np.random.Generator) -> str:
        """Make five words with capitals."""
        return " ".join(self.generate(generator).title() for _ in range(5))

    def corrupt(
        self, payload: Payload, field: str, corruption: str | None, severity: int, generator: np.random.Generator
    ) -> Array:
        """Spoil the text, then decode it: there are no windows of letters to spoil."""
        spoiled = self.corruptions[corruption](str(payload), severity, generator) if corruption else payload
        return self.decode(spoiled, field)

    def normalise(self, text: str) -> str:
        """Cut a text and normalise it to the form that the tokenizer was trained on."""
        text = self.cut(text)
        if not text.isascii():
            text = self._cut(text, _count_unfolding_to(text, UNFOLDED * self.max_characters, self._keeps_end))
            text = unicodedata.normalize("NFC", _drop_stacked_marks(text)) if self.compose else text
            text = self._cut(anyascii(text), UNFOLDED * self.max_characters) if self.transliterate else text
        return text.lower() if self.lowercase else text

    def cut(self, text: str) -> str:
        """Cut a text to max_characters."""
        return self._cut(text, self.max_characters)

    def _cut(self, text: str, most: int) -> str:
        """Cut a text at the end that the tokenizer cuts."""
        return text[max(0, len(text) - most) :] if self._keeps_end else text[:most]

    @functools.cached_property
    def _keeps_end(self) -> bool:
        return bool(self.tokenizer) and (self._tokenizer.truncation or {}).get("direction") == "left"

    def _check(self, payload: Payload, field: str) -> str:
        if not isinstance(payload, str):
            raise InputError(field, f"expected text, got {type(payload).__name__}; send a UTF-8 string")
        if all(_is_invisible(character) for character in self.cut(payload)):
            raise InputError(field, "the text is empty; leave the field out if there is none")
        try:
            payload.encode()
        except UnicodeEncodeError:
            raise InputError(field, "the text holds a lone surrogate, which is no character; send UTF-8") from None
        return payload

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self.tokenizer)


def _is_invisible(character: str) -> bool:
    """Return whether a character is white space, a joiner or a direction mark."""
    return character.isspace() or unicodedata.category(character) == "Cf"


@functools.lru_cache(maxsize=2**16)
def _decompose(character: str) -> tuple[bool, int]:
    """Return whether a character is, or decomposes into, a combining mark; and the number of characters it becomes."""
    decomposed = unicodedata.normalize("NFKD", character)
    return unicodedata.combining(decomposed[0]) > 0, len(decomposed)


def _count_unfolding_to(text: str, most: int, from_end: bool) -> int:
    """Count the characters from one end of a text that decompose into at most `most` characters."""
    sizes = (_decompose(character)[1] for character in (reversed(text) if from_end else text))
    return next((number for number, size in enumerate(itertools.accumulate(sizes)) if size > most), len(text))


def _drop_stacked_marks(text: str) -> str:
    """Drop combining marks after MARKS others in a row."""
    if len(text) <= MARKS:
        return text
    kept, marks = [], 0
    for character in text:
        marks = marks + 1 if _decompose(character)[0] else 0
        if marks <= MARKS:
            kept.append(character)
    return "".join(kept)
