"""Text: any script to token ids of fixed length."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from typing import ClassVar, Literal

import numpy as np
import tokenizers
from anyascii import anyascii

from mla_serve.errors import InputError, TooLarge
from mla_serve.inputs.base import Array, Input, Payload, added_later, stored_in

PAD = 0  # the id that fills up; encoders mask it


@dataclasses.dataclass(frozen=True)
class TextInput(Input):
    """Text in any script: NFC, optionally Latin letters and lower case, then a tokenizer's ids.

    Fields: tokenizer, the JSON of a `tokenizers.Tokenizer` (kept in tokenizer.json); length in tokens, longer texts are
    cut (by the tokenizer itself where it says how), shorter ones filled with `pad`; transliterate, to Latin with
    anyascii; lowercase; max_characters; compose, to NFC, which a pretrained tokenizer leaves to its own rules.
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
    sent_as: ClassVar[Literal["file", "text", "numbers"]] = "text"

    @property
    def shape(self) -> tuple[int]:
        """(L,)."""
        return (self.length,)

    def decode(self, payload: Payload, field: str = "text") -> Array:
        """Decode a text into (1, L) int64."""
        text = self.normalise(self._check(payload, field))
        ids = self._tokenizer.encode(text, add_special_tokens=True).ids[: self.length]
        row = np.full((1, self.length), self.pad, dtype=np.int64)
        row[0, : len(ids)] = ids
        return row

    def generate(self, generator: np.random.Generator) -> str:
        """Make a word of random letters."""
        return "".join(chr(code) for code in generator.integers(ord("a"), ord("z") + 1, 6))

    def normalise(self, text: str) -> str:
        """Bring a text to the form that the tokenizer was trained on."""
        text = unicodedata.normalize("NFC", text) if self.compose else text
        text = anyascii(text) if self.transliterate else text
        return text.lower() if self.lowercase else text

    def _check(self, payload: Payload, field: str) -> str:
        if not isinstance(payload, str):
            raise InputError(field, f"expected text, got {type(payload).__name__}; send a UTF-8 string")
        if len(payload) > self.max_characters:
            raise TooLarge(field, f"{len(payload):,} characters, at most {self.max_characters:,} are read; shorten it")
        if not payload.strip():
            raise InputError(field, "the text is empty; leave the field out if there is none")
        try:
            payload.encode()
        except UnicodeEncodeError:
            raise InputError(field, "the text holds a lone surrogate, which is no character; send UTF-8") from None
        return payload

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self.tokenizer)
