"""A variant of MLA for comparison: it encodes every modality before the first turn, as the released research code does.

Tables call it mla_up_front. bench-strategies and bench-scaling train it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mla_serve.train.strategies import STRATEGIES
from mla_serve.train.strategies.base import Batch
from mla_serve.train.strategies.mla import Mla

NAME = "mla_up_front"


class Encoded:
    """A batch whose windows have been encoded already."""

    def __init__(self, batch: Batch) -> None:
        """Keep what a turn needs beside the features."""
        self.rows, self.targets, self.present = batch.rows, batch.targets, batch.present
        self.present_everywhere = batch.present_everywhere

    def inputs(self, name: str) -> Tensor:  # noqa: ARG002
        """Return nothing: `UpFront.features` has them."""
        return torch.empty(0)


class UpFront(Mla):
    """The same steps as MLA's, apart from random numbers, at the memory of all modalities together."""

    def step(self, batch: Batch) -> dict[str, float]:
        """Encode every modality, then give each its turn."""
        self.ahead = {name: super(UpFront, self).features(name, batch.inputs(name)) for name in self.usable(batch)}
        return super().step(Encoded(batch))

    def features(self, name: str, windows: Tensor) -> Tensor:
        """Return the features that the step has encoded already, once; encode anything else."""
        ahead = getattr(self, "ahead", {})
        return ahead.pop(name) if name in ahead else super().features(name, windows)


def register() -> None:
    """Make the strategy known by its name, for this process."""
    STRATEGIES[NAME] = UpFront
