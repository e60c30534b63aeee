"""A transformers model with its preprocessing: one vector of features for each window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mla_serve.train.pretrained.fronts import make_front
from mla_serve.train.pretrained.settings import Pretrained
from mla_serve.train.pretrained.source import build_model

CLASS_TOKEN = ("vit", "deit", "vit_msn", "beit", "data2vec-vision")
"""Models whose pooler is untrained in most checkpoints; their class token is used instead."""


class Backbone(nn.Module):
    """Windows (B, *shape) to features (B, size)."""

    def __init__(self, model: nn.Module, front: Mapping[str, Any], pooling: str) -> None:
        """Take a transformers model, the settings of its front, and how its output is pooled, a key of POOL."""
        super().__init__()
        self.front = make_front(front)
        self.model = model
        self.pooling = pooling
        if pooling != "pooler" and getattr(model, "pooler", None) is not None:
            model.pooler = None

    @classmethod
    def build(cls, settings: Pretrained) -> Backbone:
        """Make one from settings alone; the weights are loaded later."""
        return cls(build_model(dict(settings.config)), settings.front, settings.pooling)

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *shape)."""
        given, real = self.prepare(windows)
        return self.run(given, real)

    def prepare(self, windows: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Compute the model's arguments, in fp32: half precision has too little range for a log-mel spectrum."""
        device = windows.device.type
        if torch.is_autocast_enabled(device):  # an exported graph has no such case
            with torch.autocast(device, enabled=False):
                return self.front(windows)
        return self.front(windows)

    def run(self, given: Mapping[str, Tensor], real: Tensor | None) -> Tensor:
        """Run the model on its arguments and pool its output."""
        return POOL[self.pooling](self.model(**given), real)


def _pooler(output: Any, _: Tensor | None) -> Tensor:
    """Use the model's own pooling: for convolutions the mean over the picture, for CLIP and DINOv2 the class token."""
    pooled: Tensor = output.pooler_output.flatten(1)
    return pooled


def _first(output: Any, _: Tensor | None) -> Tensor:
    """Use the class token."""
    states: Tensor = output.last_hidden_state
    return states[:, 0]


def _mean(output: Any, real: Tensor | None) -> Tensor:
    """Average over the real steps."""
    states: Tensor = output.last_hidden_state
    if real is None:
        return states.mean(dim=1)
    weights = real.to(states.dtype)[:, :, None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


POOL = {"pooler": _pooler, "class token": _first, "mean": _mean}


def pick_pooling(kind: str, model: nn.Module) -> str:
    """Choose the usual pooling: the mean over tokens or steps; for images and spectrogram transformers one token."""
    model_type = model.config.model_type
    if kind == "text":
        return "mean"
    if model_type in CLASS_TOKEN:
        return "class token"
    if kind == "image" or model_type == "audio-spectrogram-transformer":
        return "pooler" if getattr(model, "pooler", model) is not None else "class token"
    return "mean"
