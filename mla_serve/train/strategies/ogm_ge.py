"""OGM-GE: joint training that slows down the modality that is ahead. Peng, Wei, Deng, Wang, Hu, CVPR 2022.

On-the-fly gradient modulation with generalisation enhancement: with rho_m the mean probability that modality m alone gives
the true class, divided by the mean of the others' probabilities, the gradient g of encoder m becomes

    k_m g + noise from N(0, std(g)^2)        k_m = 1 - tanh(alpha rho_m) where rho_m > 1, and 1 elsewhere.

The noise is added to every encoder, also to one that is not slowed down. A modality alone means its slice of the joint head plus the bias divided by the number of modalities. Defined on plain SGD:
Adam divides the factor out again. Deviation: with missing modalities, the probability is a mean over the rows that have
the modality; the paper sums over all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.base import Batch
from mla_serve.train.strategies.joint import JointConcat

ALPHA = 0.3


class OgmGe(JointConcat):
    """Joint training with scaled and noisy encoder gradients."""

    tasks: ClassVar[tuple[str, ...]] = ("classes",)

    def learn(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the joint gradients, then modulate those of each encoder."""
        logged = super().learn(batch, unimodal)
        collectives.sync_random_state()
        for name, scale in self.scales(batch, unimodal).items():
            for parameter in self.encoders[name].parameters():
                if parameter.grad is not None:
                    noise = torch.randn(parameter.grad.shape).to(parameter.grad) * parameter.grad.std(correction=0)
                    parameter.grad.mul_(scale).add_(noise)
        return logged

    @torch.no_grad()
    def scales(self, batch: Batch, unimodal: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the factor of each encoder's gradient, 1 where its modality is not ahead."""
        others_bias = self.shared_bias() * (1 - 1 / len(unimodal))
        confidence = {}
        for name, logits in unimodal.items():
            truth = batch.targets[batch.present[name]][:, None]
            confidence[name] = float(
                collectives.row_mean((logits - others_bias).softmax(1).gather(1, truth).squeeze(1))
            )
        scales = {}
        for name, own in confidence.items():
            others = [value for other, value in confidence.items() if other != name]
            rho = own * len(others) / sum(others) if others else 0.0
            scales[name] = float(1 - torch.tanh(torch.tensor(ALPHA * rho))) if rho > 1 else 1.0
        return scales
