"""MMPareto: combine the gradients of the joint and of the unimodal loss without conflict. Wei, Hu, ICML 2024.

Per encoder, with a the gradient of the joint loss and b that of the modality's own loss:

    g = (a + b) / 2                                              where a and b agree (a . b > 0)
    g = the shortest vector w a + (1 - w) b, 0 <= w <= 1         elsewhere (two-task min-norm, Sener and Koltun 2018)

and g is rescaled to the norm of a + b, times 1.5. Antiparallel gradients leave no such vector; b is taken then. Defined on
plain SGD: Adam undoes the rescaling. The modalities' heads are exported, the joint head is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.joint import JointUnimodal

MAGNITUDE = 1.5


class MmPareto(JointUnimodal):
    """Joint and unimodal losses, with the two gradients of each encoder combined."""

    def backward(self, joint: Tensor, alone: Mapping[str, Tensor]) -> None:
        """Set the plain gradients of the heads, and the combined gradient of each encoder."""
        combined: list[tuple[Tensor, Tensor]] = []
        for name, loss in alone.items():
            parameters = [one for one in self.encoders[name].parameters() if one.requires_grad]
            shared = torch.autograd.grad(joint, parameters, retain_graph=True, allow_unused=True)
            own = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            gradients = _filled(shared, parameters), _filled(own, parameters)
            collectives.all_reduce([*gradients[0], *gradients[1]])
            combined += zip(parameters, _combine(*gradients), strict=True)
        super().backward(joint, alone)
        for parameter, gradient in combined:
            parameter.grad = gradient


def _filled(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def _combine(shared: Sequence[Tensor], own: Sequence[Tensor]) -> list[Tensor]:
    """Combine two gradients, each a list over the parameters."""
    a, b = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (shared, own))
    weight = 0.5 if a @ b > 0 else float((b - a) @ b / (a - b).square().sum().clamp_min(1e-12))
    mixed = weight * a + (1 - weight) * b
    if mixed.norm() < 1e-6 * b.norm():
        mixed = b  # antiparallel
    mixed = mixed * MAGNITUDE * (a + b).norm() / mixed.norm().clamp_min(1e-12)
    parts = mixed.split([gradient.numel() for gradient in shared])
    return [part.view_as(gradient) for part, gradient in zip(parts, shared, strict=True)]
