"""QMF: quality-aware multimodal fusion. Zhang et al., ICML 2023.

The modalities' logits z_m are fused by their energies u_m = 0.1 logsumexp(z_m), without a gradient through u_m:

    z = sum of u_m z_m        loss = CE(z) + sum of CE(z_m) + lambda sum of ranking_m,    lambda = 1.

The ranking loss teaches the energy to be lower for harder samples. How hard sample i is for modality m is kappa_i, its CE
summed over all steps so far and scaled to 0..1 over the data set. For pairs (i, j) of a batch, j the neighbour of i,

    ranking = mean of max(0, sign(kappa_i - kappa_j) (u_i - u_j) - |kappa_i - kappa_j|).

Pairs with equal kappa are left out, and so is the first epoch, in which kappa is incomplete. The fusion rule `energy`
applies the same sum when the model is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.base import Batch
from mla_serve.train.strategies.joint import JointSum

SCALE = 0.1
LAMBDA = 1.0


class Qmf(JointSum):
    """Joint training by energy-weighted fusion. `kappa` holds each training row's summed loss, by modality."""

    native: ClassVar[str] = "energy"
    tasks: ClassVar[tuple[str, ...]] = ("classes",)

    def prepare(self, total_steps: int, rows: int) -> None:
        """Start with a summed loss of 0 for every row and modality."""
        super().prepare(total_steps, rows)
        self.kappa = {name: torch.zeros(rows) for name in self.encoders}
        self.epochs = 0

    def start_epoch(self) -> None:
        """Count the epochs."""
        self.epochs += 1

    def learn(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the gradients of the three losses."""
        weighted = {name: SCALE * z.logsumexp(1, keepdim=True).detach() * z for name, z in unimodal.items()}
        joint, has_any = self.fuse(batch, weighted, self.kept(batch, weighted))
        loss, ranking = self.joint_loss(batch, joint, has_any, weighted), joint.new_zeros(())
        for name, z in unimodal.items():
            local = collectives.local_rows(batch.present_everywhere[name])
            rows = collectives.gather_rows(batch.rows[batch.present[name].cpu()], local)
            loss = loss + self.own_loss(batch, name, z)
            ranking = ranking + LAMBDA * self.ranking(
                name, rows, collectives.gather_rows(SCALE * z.logsumexp(1), local)
            )
            alone = F.cross_entropy(z.detach(), batch.targets[batch.present[name]], reduction="none")
            self.kappa[name][rows] += collectives.gather_rows(alone, local).cpu()
        self.set_gradients(loss + ranking)
        total = collectives.sum_values({"loss/joint": loss.item()})["loss/joint"] + ranking.item()
        return {"loss/joint": total} | self.unimodal_losses(batch, unimodal)

    def ranking(self, name: str, rows: Tensor, u: Tensor) -> Tensor:
        """Return the ranking loss of one modality. Args: rows (rows,), positions in the training split; u (rows,), energies."""
        kappa = self.kappa[name]
        spread = kappa.max() - kappa.min()
        if self.epochs < 2 or spread == 0:
            return u.new_zeros(())
        hard = ((kappa - kappa.min()) / spread)[rows].to(u.device)
        difference = hard - hard.roll(1)
        pairs = difference != 0
        violation = difference.sign() * (u - u.roll(1)) - difference.abs()
        return violation[pairs].clamp_min(0).sum() / pairs.sum().clamp_min(1)

    def training_state(self) -> dict[str, Any]:
        """Return the summed losses too."""
        return super().training_state() | {"kappa": self.kappa, "epochs": self.epochs}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` returned."""
        super().load_training_state(state)
        self.kappa, self.epochs = {name: k.cpu() for name, k in state["kappa"].items()}, state["epochs"]
