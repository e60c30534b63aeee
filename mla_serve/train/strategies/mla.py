"""MLA: alternating unimodal adaptation with one shared, protected head; and the ensemble, which is MLA without either.

Source: Zhang, Yoon, Bansal, Yao, CVPR 2024, arXiv 2311.10707; METHOD.md 1 lists the deviations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mla_serve.errors import ConfigError
from mla_serve.train.encoders import Encoder
from mla_serve.train.hgm import make_projector, project_step
from mla_serve.train.strategies.base import Batch, Options, Schedule, Strategy

SHARED = "head"
HGM = ("off", "epoch", "never", "others")


class Mla(Strategy):
    """In turn for each modality: its encoder alone, the shared head, the head's step projected, the optimiser.

    A modality is encoded inside its own turn, so peak memory is that of the largest one, not of their sum.
    """

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], classes: int, options: Options) -> Mla:
        """Make one head for all, or one for each modality."""
        if options.hgm not in HGM and not options.hgm.isdigit():
            raise ConfigError(f"--hgm {options.hgm}: expected one of {', '.join(HGM)} or a number of turns")
        if options.heads not in ("shared", "separate"):
            raise ConfigError(f"--heads {options.heads}: expected shared or separate")
        head_of = {name: SHARED if options.heads == "shared" else f"head_{name}" for name in encoders}
        width = next(iter(encoders.values())).width
        heads = {head: nn.Linear(width, classes) for head in dict.fromkeys(head_of.values())}
        return cls(encoders, heads, head_of, options)

    def prepare(self, total_steps: int) -> None:
        """Give each encoder and each head its own optimiser, so that nothing outside the turn moves."""
        parts = {**self.encoders, **self.heads}
        self.schedules = {name: Schedule(module, self.options, total_steps) for name, module in parts.items()}
        width = next(iter(self.encoders.values())).width
        protects = len(self.encoders) > 1 and self.options.heads == "shared"
        self.projector = make_projector(self.options.hgm, width) if protects else None

    def start_epoch(self) -> None:
        """Reset the projector where that is the rule."""
        if self.projector:
            self.projector.start_epoch()

    def step(self, batch: Batch) -> dict[str, float]:
        """Give every modality its turn; one with too few rows is skipped."""
        logged: dict[str, float] = {}
        for name, encoder in self.encoders.items():
            present = batch.present[name]
            if int(present.sum()) >= (2 if encoder.normalises_over_batch else 1):
                logged |= self._turn(name, batch.inputs(name), batch.labels[present])
        for schedule in self.schedules.values():
            schedule.advance()
        return logged

    def _turn(self, name: str, windows: Tensor, labels: Tensor) -> dict[str, float]:
        head = self.heads[self.head_of[name]]
        features = self.encoders[name](windows)
        loss = self.loss(head(features), labels)
        loss.backward()
        before = head.weight.detach().clone()
        self.schedules[name].step()
        self.schedules[self.head_of[name]].step()
        logged = {f"loss/{name}": loss.item()}
        if self.projector:
            logged[f"kept/{name}"] = project_step(head.weight, before, self.projector.turn(name))
            self.projector.observe(name, features)
        return logged

    def training_state(self) -> dict[str, Any]:
        """Return the optimisers, schedules and the projector."""
        return {
            "schedules": {name: schedule.state_dict() for name, schedule in self.schedules.items()},
            "projector": self.projector.state_dict() if self.projector else {},
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what `training_state` returned."""
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(state["schedules"][name])
        if self.projector:
            self.projector.load_state_dict(state["projector"])


class Ensemble(Mla):
    """Separate encoders, separate heads, no interaction: the baseline to beat."""

    @classmethod
    def build(cls, encoders: Mapping[str, Encoder], classes: int, options: Options) -> Mla:
        """Build MLA with separate heads and nothing to protect."""
        return super().build(encoders, classes, dataclasses.replace(options, heads="separate", hgm="off"))
