"""DUS: on MLA's loop, a modality that is ahead draws fewer rows. arXiv 2503.03792."""

from __future__ import annotations

import math
from typing import Any

import torch

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.base import Part
from mla_serve.train.strategies.mla import MOMENTUM, Mla

BETA = 1.0  # ours
LEAST = 0.25  # of the batch; ours


class Dus(Mla):
    """The next turn of m draws n_m = clip(n (1 - beta tanh(s_m / mean(s) - 1)), n / 4, n) rows, s_m the running mean of
    the probability that m gives the truth.
    """

    def prepare(self, total_steps: int, rows: int) -> None:
        """Start with every modality alike."""
        super().prepare(total_steps, rows)
        self.sure: dict[str, float] = {}

    def _turn(self, name: str, part: Part) -> dict[str, float]:
        rows = self.rows_for(name, part.share.total)
        part = part.first(rows)
        logged = super()._turn(name, part)
        with torch.no_grad():
            self.encoders[name].eval()
            chances = self.logits(name, part.windows)[: len(part.labels)].softmax(1)
            p = collectives.row_mean(chances.gather(1, part.labels[:, None]).squeeze(1)).item()
            self.encoders[name].train(self.training)
        self.sure[name] = MOMENTUM * self.sure.get(name, p) + (1 - MOMENTUM) * p
        return logged | {f"rows/{name}": float(rows)}

    def rows_for(self, name: str, count: int) -> int:
        """Return how many of a batch's rows a modality draws, two at least."""
        if not self.sure.get(name):
            return count  # it has had no turn yet, or is never right
        ahead = self.sure[name] / (sum(self.sure.values()) / len(self.sure)) - 1
        share = max(1 - BETA * math.tanh(ahead), LEAST)
        return min(count, max(2, round(share * count)))

    def training_state(self) -> dict[str, Any]:
        """Return the running means too."""
        return super().training_state() | {"sure": self.sure}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what `training_state` returned."""
        super().load_training_state(state)
        self.sure = state["sure"]
