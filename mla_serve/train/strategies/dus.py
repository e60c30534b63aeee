"""DUS: MLA's turns, but a modality that is ahead learns from fewer rows. arXiv 2503.03792.

With s_m the running mean of the probability that modality m gives the true class, and n the rows of the batch that have it,
the next turn of m uses

    n_m = clip(n (1 - beta tanh(s_m / mean(s) - 1)), n / 4, n)

of them. beta = 1 and the lower bound n / 4 are ours.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.base import Part
from mla_serve.train.strategies.mla import MOMENTUM, Mla

BETA = 1.0
LEAST = 0.25  # of the rows


class Dus(Mla):
    """MLA with fewer rows for modalities that are ahead. `confidence` holds s_m."""

    tasks: ClassVar[tuple[str, ...]] = ("classes",)

    def prepare(self, total_steps: int, rows: int) -> None:
        """Start with no confidence measured."""
        super().prepare(total_steps, rows)
        self.confidence: dict[str, float] = {}

    def _turn(self, name: str, part: Part) -> dict[str, float]:
        rows = self.rows_for(name, part.local.total)
        part = part.first(rows)
        logged = super()._turn(name, part)
        with torch.no_grad():
            self.encoders[name].eval()
            probabilities = self.opinions(name, part.windows)[: len(part.targets)].softmax(1)
            p = collectives.row_mean(probabilities.gather(1, part.targets[:, None]).squeeze(1)).item()
            self.encoders[name].train(self.training)
        self.confidence[name] = MOMENTUM * self.confidence.get(name, p) + (1 - MOMENTUM) * p
        return logged | {f"rows/{name}": float(rows)}

    def rows_for(self, name: str, count: int) -> int:
        """Return how many of `count` rows a modality uses, two at least."""
        if not self.confidence.get(name):
            return count  # it has had no turn yet, or is never right
        ahead = self.confidence[name] / (sum(self.confidence.values()) / len(self.confidence)) - 1
        fraction = max(1 - BETA * math.tanh(ahead), LEAST)
        return min(count, max(2, round(fraction * count)))

    def training_state(self) -> dict[str, Any]:
        """Return the confidences too."""
        return super().training_state() | {"sure": self.confidence}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` returned."""
        super().load_training_state(state)
        self.confidence = state["sure"]
