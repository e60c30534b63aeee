"""Text encoder: token ids to features."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mla_serve.inputs import TextInput
from mla_serve.inputs.text import PAD
from mla_serve.train.encoders.base import Encoder


class SmallText(Encoder):
    """Convolutions over 1 to 5 neighbouring tokens, the strongest match of each (Kim, EMNLP 2014)."""

    SPANS = (1, 2, 3, 4, 5)

    def __init__(self, spec: TextInput, width: int, embedding: int = 64, channels: int = 96) -> None:
        """Build for the tokenizer's vocabulary."""
        super().__init__(spec, width)
        self.embed = nn.Embedding(vocabulary_size(spec), embedding, padding_idx=PAD)
        self.embed_dropout = nn.Dropout(0.1)
        self.convs = nn.ModuleList(nn.Conv1d(embedding, channels, span, padding=span - 1) for span in self.SPANS)
        matches = channels * len(self.SPANS)
        self.end = nn.Sequential(nn.BatchNorm1d(matches), nn.Dropout(0.3), nn.Linear(matches, width))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode ids (B, L); padding embeds to zeros, which match nothing."""
        x = self.embed_dropout(self.embed(windows)).transpose(1, 2)
        matches = torch.cat([F.relu(conv(x)).amax(dim=2) for conv in self.convs], dim=1)
        features: Tensor = self.end(matches)
        return features


def vocabulary_size(spec: TextInput) -> int:
    """Count the ids that a tokenizer can give."""
    content = json.loads(spec.tokenizer)
    ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])]
    return 1 + max(ids)
