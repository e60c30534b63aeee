"""The pretrained encoders that strategies train.

FrozenEncoder: the features of the backbone are computed once, and only a projection is trained on them. At export it is
replaced by a CompleteEncoder. CompleteEncoder: backbone and projection are both trained, or only the low-rank matrices
(LoRA) in the backbone. It is what is exported in every case.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mla_serve.inputs import Input
from mla_serve.train.cache.folders import note_use
from mla_serve.train.cache.store import ArrayStore
from mla_serve.train.encoders.base import Encoder, Weights
from mla_serve.train.pretrained.backbone import Backbone
from mla_serve.train.pretrained.settings import Pretrained
from mla_serve.train.pretrained.source import quietly

BATCH = 32  # windows that go through a frozen backbone together
MEASURED = 256  # windows by which features are standardised, where each needs a pass through the backbone
DROPOUT = {"frozen": 0.5, "lora": 0.1, "full": 0.1}
"""Of the features before the projection. Frozen features are not augmented. With .5, the texts of MVSA-Single reach the
accuracy of a logistic regression with the best ridge (validation .72, NLL .68; with .1 only .69 and .76)."""
MIN_STD = 0.01  # of the average deviation; no feature is divided by less
SPEED = {"full": 0.02, "lora": 0.25}
"""Factor on --lr for the pretrained part: all weights, or the low-rank matrices of LoRA."""
ALPHA = 2  # LoRA's alpha, in multiples of the rank


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
        """Set mean and standard deviation of each feature. A feature that hardly varies is not blown up."""
        std = features.double().std(0, correction=0)
        self.mean.copy_(features.double().mean(0))
        self.std.copy_(std.clamp_min(max(MIN_STD * float(std.mean()), 1e-6)))

    def forward(self, features: Tensor) -> Tensor:
        """Project (B, size)."""
        projected: Tensor = self.end((features - self.mean) / self.std)
        return projected


class FeatureExtractor:
    """A frozen backbone with a store of its features. Not a module, so that no strategy trains, saves or counts it."""

    def __init__(self, backbone: nn.Module, settings: Pretrained, cache: Path | None, device: torch.device) -> None:
        """Take the folder of the cache, or None to compute without one. Raises: ConfigError when it cannot be written."""
        self.backbone = backbone.eval().requires_grad_(False).to(device)
        self.device, self.size = device, settings.size
        self.store: ArrayStore | None = None
        if cache:
            self.store = ArrayStore(cache / "features" / _fingerprint(settings), np.dtype(("<f4", (self.size,))))
            note_use(self.store, f"features of {settings.source}", dataclasses.asdict(settings), None)

    def __call__(self, windows: Tensor) -> Tensor:
        """Return the features (N, size) of decoded windows (N, *shape). Equal windows are computed once."""
        keys = [hashlib.sha256(np.ascontiguousarray(window).tobytes()).digest() for window in windows.numpy()]
        stored = self.store.find_whole(keys) if self.store else np.full(len(keys), -1)
        new = {key: at for at, key in enumerate(keys) if stored[at] < 0}
        computed = self._compute(windows[list(new.values())])
        if self.store is None:
            place = {key: at for at, key in enumerate(new)}
            return computed[[place[key] for key in keys]]
        if new:
            with self.store.writing():
                self.store.append(list(new), list(computed.numpy()[:, None]))
        starts = self.store.entries["start"][self.store.find_all(keys)]
        return torch.from_numpy(np.array(self.store.records()[starts]).reshape(len(keys), self.size))

    @torch.no_grad()
    def _compute(self, windows: Tensor) -> Tensor:
        parts = [self.backbone(part.to(self.device)).cpu() for part in windows.split(BATCH) if len(part)]
        return torch.cat([torch.empty(0, self.size), *parts])


class FrozenEncoder(Encoder):
    """The projection alone. In training its windows are the features that `precompute` returns."""

    extractor: FeatureExtractor

    def __init__(self, spec: Input, width: int, settings: Pretrained) -> None:
        """Build the projection."""
        super().__init__(spec, width)
        self.settings = settings
        self.end = Projection(settings, width)

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        """Take the backbone that computes the features, and the folder of the cache."""
        self.extractor = FeatureExtractor(backbone, self.settings, cache, device)

    def precompute(self, windows: Tensor) -> Tensor:
        """Return the backbone's features of decoded windows: (N, size)."""
        return self.extractor(windows)

    @property
    def precomputes(self) -> bool:
        """True: features are computed once, before training."""
        return True

    def measure(self, windows: Tensor) -> None:
        """Standardise by precomputed features."""
        self.end.measure(windows)

    def forward(self, windows: Tensor) -> Tensor:
        """Project precomputed features (B, size)."""
        features: Tensor = self.end(windows)
        return features

    def finished(self, weights: Weights) -> Encoder:
        """Return the complete encoder, which takes decoded windows."""
        whole = CompleteEncoder(self.spec, self.width, self.settings)
        whole.backbone.load_state_dict(weights())
        whole.end = self.end
        return whole.eval()


class CompleteEncoder(Encoder):
    """Backbone and projection."""

    def __init__(self, spec: Input, width: int, settings: Pretrained) -> None:
        """Build from settings; the weights of the backbone are adopted or loaded later."""
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
        """Standardise by the features of the pretrained weights."""
        training = self.training
        self.eval()
        with torch.no_grad():
            self.end.measure(torch.cat([self.backbone(part) for part in windows[:MEASURED].split(BATCH)]))
        self.train(training)

    def train(self, mode: bool = True) -> CompleteEncoder:
        """Switch to training, except the running statistics of batch norms that LoRA keeps frozen."""
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
        """Let the pretrained part learn more slowly."""
        speed = SPEED.get(self.settings.tune, 1.0)
        return {id(parameter): speed for parameter in self.backbone.parameters()}

    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *shape)."""
        features: Tensor = self.end(self.backbone(windows))
        return features

    def finished(self, weights: Weights) -> Encoder:  # noqa: ARG002
        """Merge the low-rank matrices into their layers."""
        if self.settings.tune == "lora":
            self.backbone.model = self.backbone.model.merge_and_unload()
        return self


def make_pretrained(spec: Input, width: int, settings: Pretrained) -> Encoder:
    """Build the encoder for training; the weights of its backbone are adopted later."""
    return (FrozenEncoder if settings.tune == "frozen" else CompleteEncoder)(spec, width, settings)


def _fingerprint(settings: Pretrained) -> str:
    """Return the hash of everything that features depend on, except the windows."""
    parts = [settings.weights, dict(settings.front), settings.pooling, dict(settings.config)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _with_lora(model: nn.Module, settings: Pretrained) -> Any:
    """Add low-rank matrices to every linear layer, and freeze everything else."""
    import peft

    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=ALPHA * settings.rank, target_modules=list(linear_layers(model))
    )
    with quietly():
        return peft.LoraModel(model, config, "default")


def _key_in(own: Mapping[str, Any], name: str) -> str:
    """Return the key of a pretrained weight. Where LoRA has wrapped its layer, the layer is called base_layer."""
    inside = name.replace("model.", "model.model.", 1)
    stem, _, leaf = inside.rpartition(".")
    return next(key for key in (name, inside, f"{stem}.base_layer.{leaf}") if key in own)


def linear_layers(model: nn.Module) -> Iterator[str]:
    """Yield the names of the layers that LoRA can extend."""
    return (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
