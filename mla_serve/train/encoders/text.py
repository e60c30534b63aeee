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
    """Embedding, three residual convolutions over tokens, mean and maximum over those that are there."""

    def __init__(self, spec: TextInput, width: int, channels: int = 128) -> None:
        """Build for the tokenizer's vocabulary."""
        super().__init__(spec, width)
        self.embed = nn.Embedding(vocabulary_size(spec), channels, padding_idx=PAD)
        self.embed_dropout = nn.Dropout(0.1)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, size, padding=size // 2) for size in (3, 3, 5))
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in self.convs)
        self.end = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * channels, width))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode ids (B, L)."""
        there = (windows != PAD).float()[:, None]
        x = self.embed_dropout(self.embed(windows)).transpose(1, 2) * there
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = (x + F.relu(norm(conv(x)))) * there
        mean = x.sum(dim=2) / there.sum(dim=2).clamp_min(1.0)
        # A text of which nothing is left gives zeros, not the mask's own value.
        highest = (x - 1e4 * (1.0 - there)).amax(dim=2) * there.amax(dim=2)
        features: Tensor = self.end(torch.cat([mean, highest], dim=1))
        return features


def vocabulary_size(spec: TextInput) -> int:
    """Count the ids that a tokenizer can give."""
    content = json.loads(spec.tokenizer)
    ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])]
    return 1 + max(ids)
