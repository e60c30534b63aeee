"""Texts in training: choosing the input, augmentation, and an encoder from token ids to features."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence

import numpy as np
import tokenizers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mla_serve.inputs import TextInput
from mla_serve.inputs.text import PAD
from mla_serve.train.config import TrainConfig
from mla_serve.train.encoders.base import Encoder

MAX_TOKENS = 256


class SmallText(Encoder):
    """Convolutions over 1 to 5 neighbouring tokens and the maximum over the text (Kim, EMNLP 2014)."""

    SPANS = (1, 2, 3, 4, 5)
    chooses_one_input = True  # one tokenizer for all texts
    augments_text = True

    @classmethod
    def choose_input(cls, values: Sequence[str], config: TrainConfig) -> TextInput:
        """Train a tokenizer, and take a length that holds 99 % of the texts, up to MAX_TOKENS."""
        transliterate = _mixes_scripts(values) if config.transliterate is None else config.transliterate
        draft = TextInput(tokenizer="", length=1, transliterate=transliterate)
        texts = [draft.normalise(text) for text in values]
        tokenizer = train_tokenizer(texts)
        lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
        length = int(np.clip(8 * np.ceil((np.quantile(lengths, 0.99) + 4) / 8), 16, MAX_TOKENS))
        return TextInput(tokenizer.to_str(), length, transliterate)

    @staticmethod
    def augment_text(text: str, generator: np.random.Generator) -> str:
        """Mistype a text: with even odds nothing, else drop, double, swap or replace about one character in eight."""
        if generator.random() < 0.5 or len(text) < 3:
            return text
        letters = list(text)
        for _ in range(1 + generator.poisson(len(letters) / 16)):
            at = int(generator.integers(len(letters) - 1))
            edit = generator.integers(4)
            if edit == 0 and len(letters) > 2:
                del letters[at]
            elif edit == 1:
                letters.insert(at, letters[at])
            elif edit == 2:
                letters[at], letters[at + 1] = letters[at + 1], letters[at]
            else:
                letters[at] = text[int(generator.integers(len(text)))]
        mistyped = "".join(letters)
        return mistyped if mistyped.strip() else text

    def __init__(self, spec: TextInput, width: int, embedding: int = 64, channels: int = 96) -> None:
        """Build for the tokenizer's vocabulary."""
        super().__init__(spec, width)
        self.embed = nn.Embedding(vocabulary_size(spec), embedding, padding_idx=PAD)
        self.embed_dropout = nn.Dropout(0.1)
        self.convs = nn.ModuleList(nn.Conv1d(embedding, channels, span, padding=span - 1) for span in self.SPANS)
        matches = channels * len(self.SPANS)
        self.end = nn.Sequential(nn.BatchNorm1d(matches), nn.Dropout(0.3), nn.Linear(matches, width))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode ids (B, L); padding embeds to zeros."""
        x = self.embed_dropout(self.embed(windows)).transpose(1, 2)
        matches = torch.cat([F.relu(conv(x)).amax(dim=2) for conv in self.convs], dim=1)
        features: Tensor = self.end(matches)
        return features


def vocabulary_size(spec: TextInput) -> int:
    """Return one more than the largest id of a tokenizer."""
    content = json.loads(spec.tokenizer)
    ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])]
    return 1 + max(ids)


def train_tokenizer(texts: Sequence[str]) -> tokenizers.Tokenizer:
    """Train a byte-level BPE tokenizer with about one entry per 50 characters: with little text, it uses single bytes."""
    size = int(np.clip(sum(map(len, texts)) // 50, 258, 8000))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=3,
        special_tokens=["<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.token_to_id("<pad>") != PAD:
        raise AssertionError("the padding token must have the id that inputs fill up with")
    return tokenizer


def _mixes_scripts(texts: Sequence[str]) -> bool:
    """Return whether 2 to 98 % of the texts contain letters that are not Latin."""
    share = np.mean(
        [any(c.isalpha() and not unicodedata.name(c, "").startswith("LATIN") for c in text) for text in texts]
    )
    return bool(0.02 < share < 0.98)
