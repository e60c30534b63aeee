"""OGM-GE: slow the modality that is ahead, and shake it. Peng, Wei, Deng, Wang, Hu, CVPR 2022."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.base import Batch
from mla_serve.train.strategies.joint import JointConcat

ALPHA = 0.3


class OgmGe(JointConcat):
    """Joint training; where a modality's confidence in the truth is rho > 1 times the mean of the others', its encoder's
    gradient is scaled by 1 - tanh(alpha rho) and given noise N(0, std(g)).

    Made for plain SGD: Adam divides the scale out again. With missing rows, confidence is a mean over the rows that have
    the modality, not a sum over all.
    """

    def learn(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the joint gradients, then modulate each encoder's."""
        logged = super().learn(batch, opinions)
        collectives.agree_on_random()
        for name, scale in self.scales(batch, opinions).items():
            for parameter in self.encoders[name].parameters():
                if parameter.grad is not None and scale < 1:
                    noise = torch.randn(parameter.grad.shape).to(parameter.grad) * parameter.grad.std(correction=0)
                    parameter.grad.mul_(scale).add_(noise)
        return logged

    @torch.no_grad()
    def scales(self, batch: Batch, opinions: Mapping[str, Tensor]) -> dict[str, float]:
        """Return each encoder's factor, 1 where it is not ahead."""
        share = self.shared_bias() * (1 - 1 / len(opinions))
        sure = {}
        for name, logits in opinions.items():
            truth = batch.labels[batch.present[name]][:, None]
            sure[name] = float(collectives.row_mean((logits - share).softmax(1).gather(1, truth).squeeze(1)))
        scales = {}
        for name, own in sure.items():
            others = [value for other, value in sure.items() if other != name]
            rho = own * len(others) / sum(others) if others else 0.0
            scales[name] = float(1 - torch.tanh(torch.tensor(ALPHA * rho))) if rho > 1 else 1.0
        return scales
