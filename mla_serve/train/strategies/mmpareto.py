"""MMPareto: make the joint and the unimodal gradient of each encoder agree. Wei, Hu, ICML 2024."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mla_serve.train.distributed import collectives
from mla_serve.train.strategies.joint import JointUnimodal

MAGNITUDE = 1.5


class MmPareto(JointUnimodal):
    """Per encoder: where the two gradients agree (cos > 0) their mean, else the shortest vector between them; rescaled
    to the length of their plain sum, times 1.5. Made for SGD.
    """

    def backward(self, joint: Tensor, alone: Mapping[str, Tensor]) -> None:
        """Set the heads' plain gradients, and each encoder's combined one."""
        combined: list[tuple[Tensor, Tensor]] = []
        for name, loss in alone.items():
            parameters = [one for one in self.encoders[name].parameters() if one.requires_grad]
            shared = torch.autograd.grad(joint, parameters, retain_graph=True, allow_unused=True)
            own = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            gradients = _filled(shared, parameters), _filled(own, parameters)
            collectives.sum_([*gradients[0], *gradients[1]])
            combined += zip(parameters, _combine(*gradients), strict=True)
        super().backward(joint, alone)
        for parameter, gradient in combined:
            parameter.grad = gradient


def _filled(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def _combine(shared: Sequence[Tensor], own: Sequence[Tensor]) -> list[Tensor]:
    """Combine two gradients, each given as a list over the parameters."""
    a, b = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (shared, own))
    share = 0.5 if a @ b > 0 else float((b - a) @ b / (a - b).square().sum().clamp_min(1e-12))
    mixed = share * a + (1 - share) * b
    if mixed.norm() < 1e-6 * b.norm():
        mixed = b  # antiparallel: nothing is left between them, so the unimodal one
    mixed = mixed * MAGNITUDE * (a + b).norm() / mixed.norm().clamp_min(1e-12)
    parts = mixed.split([gradient.numel() for gradient in shared])
    return [part.view_as(gradient) for part, gradient in zip(parts, shared, strict=True)]
