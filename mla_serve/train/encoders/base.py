"""The interface of an encoder, and what the default encoder of a kind decides for all encoders of that kind.

CONTRIBUTING.md says how to add one; ENCODERS in __init__.py lists them.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mla_serve.inputs import Input
from mla_serve.train.config import TrainConfig

Weights = Callable[[], Mapping[str, Tensor]]
"""Reads weights that a run stores outside its checkpoints."""


def at_least_float32(x: Tensor) -> Tensor:
    """Convert bf16 to float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Encoder(nn.Module, abc.ABC):
    """Turn decoded arrays of one input into features. The normalisation is measured once and exported in the graph.

    The default encoder of a kind also chooses the settings of the input (`choose_input`) and augments training samples
    (`augment_windows`, `augment_text`), whichever encoder of that kind is trained.
    """

    chooses_one_input: ClassVar[bool] = False
    """Whether all modalities of the kind get the same input, chosen from the values of all of them."""
    augments_text: ClassVar[bool] = False
    """Whether samples are augmented before they are decoded, by `augment_text` instead of `augment_windows`."""

    def __init__(self, spec: Input, width: int) -> None:
        """Build for an input's shape; width is D."""
        super().__init__()
        self.spec = spec
        self.width = width

    @classmethod
    def choose_input(cls, values: Sequence[Any], config: TrainConfig) -> Input:
        """Choose the settings of the input from payloads of training rows; the default encoder of a kind needs it.

        Raises: ConfigError when nothing can be chosen from these values.
        """
        raise NotImplementedError(f"{cls.__name__} is the default encoder of its kind and has no choose_input")

    @staticmethod
    def augment_windows(windows: Tensor, generator: torch.Generator, how: str = "light") -> Tensor:  # noqa: ARG004
        """Vary decoded windows (B, *shape) for training. Default: leave them as they are.

        Args: how, a value of --augment: light, or photo, which pictures alone are varied by.
        """
        return windows

    @staticmethod
    def augment_text(text: str, generator: np.random.Generator) -> str:  # noqa: ARG004
        """Vary a text for training. Default: leave it as it is."""
        return text

    @abc.abstractmethod
    def forward(self, windows: Tensor) -> Tensor:
        """Encode (B, *spec.shape) as decoded, or augmented to float32, into features (B, D)."""

    def measure(self, windows: Tensor) -> None:
        """Set the normalisation from training windows (N, *spec.shape). Default: nothing to measure."""

    def set_backbone(self, backbone: nn.Module, cache: Path | None, device: torch.device) -> None:
        """Use a pretrained backbone; cache: the folder for its features. Default: there is no backbone."""

    @property
    def precomputes(self) -> bool:
        """Whether features are computed once, before training; windows are not augmented then."""
        return False

    def precompute(self, windows: Tensor) -> Tensor:
        """Compute what `forward` takes instead of decoded windows (N, *spec.shape). Default: the windows themselves."""
        return windows

    def relative_learning_rates(self) -> Mapping[int, float]:
        """Return the parameters with another learning rate: {id: fraction of the learning rate}. Default: none."""
        return {}

    def finished(self, weights: Weights) -> Encoder:  # noqa: ARG002
        """Return the encoder to export, which takes decoded windows. Default: this one."""
        return self

    @property
    def normalises_over_batch(self) -> bool:
        """Whether training needs at least two samples at a time."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
