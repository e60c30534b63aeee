"""QMF: fuse by energy, and teach the energy to rank samples by how hard they are. Zhang et al., ICML 2023."""

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
    """CE of the energy-weighted sum, CE of each modality, and a ranking loss on the energies u = 0.1 logsumexp(z).

    Of two samples, the one whose accumulated loss kappa is larger should not have the larger u. Pairs are i and i rolled
    by one; ties, and the first epoch, in which nothing has been accumulated, are left out.
    """

    native: ClassVar[str] = "energy"

    def prepare(self, total_steps: int, rows: int) -> None:
        """Keep each row's accumulated loss for every modality."""
        super().prepare(total_steps, rows)
        self.kappa = {name: torch.zeros(rows) for name in self.encoders}
        self.epochs = 0

    def start_epoch(self) -> None:
        """Count the epochs."""
        self.epochs += 1

    def learn(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the gradients of the three losses."""
        weighted = {name: SCALE * z.logsumexp(1, keepdim=True).detach() * z for name, z in opinions.items()}
        joint, outputs = self.fuse(batch, weighted, self.kept(batch, weighted))
        loss, ranking = self.joint_loss(batch, joint, outputs, weighted), joint.new_zeros(())
        for name, z in opinions.items():
            share = collectives.share(batch.whole[name])
            rows = collectives.lined_up(batch.rows[batch.present[name].cpu()], share)
            loss = loss + self.own_loss(batch, name, z)
            ranking = ranking + LAMBDA * self.ranking(name, rows, collectives.lined_up(SCALE * z.logsumexp(1), share))
            alone = F.cross_entropy(z.detach(), batch.labels[batch.present[name]], reduction="none")
            self.kappa[name][rows] += collectives.lined_up(alone, share).cpu()
        self.set_gradients(loss + ranking)
        total = collectives.sum_values({"loss/joint": loss.item()})["loss/joint"] + ranking.item()
        return {"loss/joint": total} | self.unimodal_losses(batch, opinions)

    def ranking(self, name: str, rows: Tensor, u: Tensor) -> Tensor:
        """Return the ranking loss of one modality's energies u (rows,) of rows of the training split."""
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
        """Return the accumulated losses too."""
        return super().training_state() | {"kappa": self.kappa, "epochs": self.epochs}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what `training_state` returned."""
        super().load_training_state(state)
        self.kappa, self.epochs = {name: k.cpu() for name, k in state["kappa"].items()}, state["epochs"]
