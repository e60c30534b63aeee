"""Pretrained encoders as strategies see them.

Frozen: in training its windows are what the backbone says of them, computed once, and all there is to learn is the
projection; the backbone comes back for the export. Whole: backbone and projection, both trained, or the backbone's
low-rank matrices alone; and what is exported, in every case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mla_serve.inputs import Input
from mla_serve.train.encoders.base import Encoder, Weights
from mla_serve.train.pretrained.backbone import Backbone
from mla_serve.train.pretrained.cache import FeatureCache
from mla_serve.train.pretrained.settings import Pretrained
from mla_serve.train.pretrained.source import quietly

BATCH = 32  # windows that go through a frozen backbone together
MEASURED = 256  # windows that are standardised by, where each costs a pass through the backbone
DROPOUT = {"frozen": 0.5, "lora": 0.1, "full": 0.1}
"""Of the features before the projection. Frozen ones are not augmented: with .5, MVSA's texts come to what the best ridge
of a logistic regression does on them (validation .72, NLL .68; with .1 .69 and .76)."""
LEAST = 0.01  # of the average deviation: what a feature is divided by at least
SPEED = {"full": 0.02, "lora": 0.25}
"""How fast what is pretrained learns, of --lr: its whole weights, or low-rank matrices beside them."""
ALPHA = 2  # of LoRA's scale alpha / rank, in ranks


class Projection(nn.Module):
    """Standardise features (B, size) by the training set, then one linear layer to (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Pretrained, width: int) -> None:
        """Build for the backbone's size."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(settings.size))
        self.register_buffer("std", torch.ones(settings.size))
        self.end = nn.Sequential(nn.Dropout(DROPOUT[settings.tune]), nn.Linear(settings.size, width))

    def measure(self, features: Tensor) -> None:
        """Take mean and standard deviation per feature; one that hardly varies is not blown up."""
        std = features.double().std(0, correction=0)
        self.mean.copy_(features.double().mean(0))
        self.std.copy_(std.clamp_min(max(LEAST * float(std.mean()), 1e-6)))

    def forward(self, features: Tensor) -> Tensor:
        """Project (B, size)."""
        projected: Tensor = self.end((features - self.mean) / self.std)
        return projected


class Extractor:
    """A frozen backbone and what it said before. No module, so that no strategy trains, saves or counts it."""

    def __init__(self, backbone: nn.Module, settings: Pretrained, cache: Path | None, device: torch.device) -> None:
        """Take the folder of caches, or None to compute anew each time."""
        self.backbone = backbone.eval().requires_grad_(False).to(device)
        self.device, self.size = device, settings.size
        self.cache = FeatureCache(cache / _fingerprint(settings), settings.size) if cache else None

    def __call__(self, windows: Tensor) -> Tensor:
        """Return the features (N, size) of decoded windows (N, *shape), each different one computed once."""
        keys = [hashlib.sha256(np.ascontiguousarray(window).tobytes()).digest() for window in windows.numpy()]
        new = {key: at for at, key in enumerate(keys) if self.cache is None or key not in self.cache}
        computed = self._compute(windows[list(new.values())])
        if self.cache is not None:
            self.cache.put(list(new), computed.numpy())
            return torch.from_numpy(self.cache.get(keys))
        place = {key: at for at, key in enumerate(new)}
        return computed[[place[key] for key in keys]]

    @torch.no_grad()
    def _compute(self, windows: Tensor) -> Tensor:
        parts = [self.backbone(part.to(self.device)).cpu() for part in windows.split(BATCH) if len(part)]
        return torch.cat([torch.empty(0, self.size), *parts])


class Frozen(Encoder):
    """The projection alone; its windows in training are the features that `precompute` returns."""

    extractor: Extractor

    def __init__(self, spec: Input, width: int, settings: Pretrained) -> None:
        """Build the projection."""
        super().__init__(spec, width)
        self.settings = settings
        self.end = Projection(settings, width)

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        """Take up the backbone that computes the features, and the folder where they are kept."""
        self.extractor = Extractor(backbone, self.settings, cache, device)

    def precompute(self, windows: Tensor) -> Tensor:
        """Return what the backbone says of decoded windows: (N, size)."""
        return self.extractor(windows)

    @property
    def precomputes(self) -> bool:
        """Yes."""
        return True

    def measure(self, windows: Tensor) -> None:
        """Standardise by precomputed features."""
        self.end.measure(windows)

    def forward(self, windows: Tensor) -> Tensor:
        """Project precomputed features (B, size)."""
        features: Tensor = self.end(windows)
        return features

    def finished(self, weights: Weights) -> Encoder:
        """Return the whole encoder."""
        whole = Whole(self.spec, self.width, self.settings)
        whole.backbone.load_state_dict(weights())
        whole.end = self.end
        return whole.eval()


class Whole(Encoder):
    """Backbone and projection."""

    def __init__(self, spec: Input, width: int, settings: Pretrained) -> None:
        """Build from settings; the backbone's weights are to be adopted or loaded."""
        super().__init__(spec, width)
        self.settings = settings
        self.backbone = Backbone.build(settings)
        self.end = Projection(settings, width)
        if settings.tune == "lora":
            self.backbone.model = _with_lora(self.backbone.model, settings)

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:  # noqa: ARG002
        """Copy the pretrained weights."""
        own = self.backbone.state_dict()
        for name, value in backbone.state_dict().items():
            own[_key_in(own, name)].copy_(value)

    def measure(self, windows: Tensor) -> None:
        """Standardise by what the pretrained weights say."""
        training = self.training
        self.eval()
        with torch.no_grad():
            self.end.measure(torch.cat([self.backbone(part) for part in windows[:MEASURED].split(BATCH)]))
        self.train(training)

    def train(self, mode: bool = True) -> Whole:
        """Train, but for what a frozen layer keeps count of."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and self.settings.tune == "lora":
                module.eval()
        return self

    @property
    def normalises_over_batch(self) -> bool:
        """Whether training needs at least two samples at a time: not where batch norms are frozen."""
        return self.settings.tune == "full" and super().normalises_over_batch

    def relative_learning_rates(self) -> Mapping[int, float]:
        """Let what is pretrained learn more slowly."""
        speed = SPEED.get(self.settings.tune, 1.0)
        return {id(parameter): speed for parameter in self.backbone.parameters()}

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *shape)."""
        features: Tensor = self.end(self.backbone(windows))
        return features

    def finished(self, weights: Weights) -> Encoder:  # noqa: ARG002
        """Merge low-rank matrices into the layers that they stand beside."""
        if self.settings.tune == "lora":
            self.backbone.model = self.backbone.model.merge_and_unload()
        return self


def make_pretrained(spec: Input, width: int, settings: Pretrained) -> Encoder:
    """Build the encoder for training, its backbone's weights to be adopted."""
    return (Frozen if settings.tune == "frozen" else Whole)(spec, width, settings)


def _fingerprint(settings: Pretrained) -> str:
    """Hash what features depend on, beside the windows."""
    parts = [settings.weights, dict(settings.front), settings.pooling, dict(settings.config)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _with_lora(model: nn.Module, settings: Pretrained) -> Any:
    """Put low-rank matrices beside every linear layer; all else is frozen."""
    import peft

    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=ALPHA * settings.rank, target_modules=list(linear_layers(model))
    )
    with quietly():
        return peft.LoraModel(model, config, "default")


def _key_in(own: Mapping[str, Any], name: str) -> str:
    """Find a pretrained weight beside low-rank matrices, where its layer has become base_layer."""
    inside = name.replace("model.", "model.model.", 1)
    stem, _, leaf = inside.rpartition(".")
    return next(key for key in (name, inside, f"{stem}.base_layer.{leaf}") if key in own)


def linear_layers(model: nn.Module) -> Iterator[str]:
    """Name the layers that LoRA could stand beside."""
    return (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
