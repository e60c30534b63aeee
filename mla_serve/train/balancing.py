"""Head gradient modification: steps of the shared head that leave earlier turns' answers alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mla_serve.train.distributed import collectives

ALPHA = 0.1  # the constant of the recursive update; the paper's code anneals .1 -> .01 within an epoch


class RecursiveProjector:
    """Orthogonal-projection learning, recursive least squares form (OWM): P <- P - q qT / (alpha + rT q), q = P r.

    For constant alpha, P = alpha (alpha I + R RT)^-1 over the means R seen since the last reset. It never grows back,
    so without a reset the head freezes: reset is "epoch", "never", or a number of turns.
    """

    def __init__(self, width: int, reset: str | int, alpha: float = ALPHA) -> None:
        """Start from the identity, D x D float64."""
        self.reset, self.alpha = reset, alpha
        self._width = width
        self.matrix: Tensor
        self._previous: Tensor | None
        self._turns: int
        self._forget()

    def turn(self, name: str) -> Tensor:  # noqa: ARG002
        """Return the projector (D, D) for the turn that begins; the previous turn's mean is taken in first."""
        if isinstance(self.reset, int) and self._turns and self._turns % self.reset == 0:
            self._forget()
        if self._previous is not None:
            q = self.matrix @ self._previous
            self.matrix = self.matrix - torch.outer(q, q) / (self.alpha + self._previous @ q)
        self._turns += 1
        return self.matrix

    def observe(self, name: str, features: Tensor) -> None:  # noqa: ARG002
        """Remember the mean of a turn's features (B, D), of all processes', as they were before its step."""
        self._previous = collectives.row_mean(features.detach().double()).cpu()

    def start_epoch(self) -> None:
        """Forget at the start of an epoch where that is the rule."""
        if self.reset == "epoch":
            self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"matrix": self.matrix, "previous": self._previous, "turns": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.matrix, self._previous, self._turns = state["matrix"], state["previous"], state["turns"]

    def _forget(self) -> None:
        self.matrix = torch.eye(self._width, dtype=torch.float64)
        self._previous = None
        self._turns = 0


class OthersProjector:
    """The stateless variant: project out the span of the running means of the OTHER modalities (rank M - 1, no decay)."""

    MOMENTUM = 0.9

    def __init__(self, width: int) -> None:
        """Start with nothing to protect."""
        self._width = width
        self._means: dict[str, Tensor] = {}

    def turn(self, name: str) -> Tensor:
        """Return the projector (D, D) for a turn of `name`."""
        others = [mean for other, mean in self._means.items() if other != name]
        identity = torch.eye(self._width, dtype=torch.float64)
        if not others:
            return identity
        basis, singular, _ = torch.linalg.svd(torch.stack(others, dim=1), full_matrices=False)
        basis = basis[:, singular > 1e-9 * singular.max()]
        return identity - basis @ basis.T

    def observe(self, name: str, features: Tensor) -> None:
        """Move the running mean of a modality."""
        mean = collectives.row_mean(features.detach().double()).cpu()
        old = self._means.get(name, mean)
        self._means[name] = self.MOMENTUM * old + (1 - self.MOMENTUM) * mean

    def start_epoch(self) -> None:
        """Keep the means: they follow the features by themselves."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._means = state["means"]


Projector = RecursiveProjector | OthersProjector


def make_projector(hgm: str, width: int) -> Projector | None:
    """Build by the option's value: off, epoch, never, others, or a number of turns."""
    if hgm == "off":
        return None
    if hgm == "others":
        return OthersProjector(width)
    return RecursiveProjector(width, int(hgm) if hgm.isdigit() else hgm)


def project_step(weight: Tensor, before: Tensor, projector: Tensor) -> float:
    """Replace the step that an optimiser has applied to the head by its projection.

    W <- W_before + (W_after - W_before) P. It is the applied step that must not undo other turns: Adam rescales a
    projected gradient and momentum brings other turns' directions back. With plain SGD this is the paper's W.grad P.

    Args: weight (C, D), after the step, changed in place; before (C, D); projector (D, D).
    Returns: ||dW P|| / ||dW||, the share of the step that was kept.
    """
    step = weight.detach().double() - before.double()
    kept = step @ projector.to(step.device)
    with torch.no_grad():
        weight.copy_(before + kept.to(weight.dtype))
    return float(kept.norm() / step.norm().clamp_min(1e-30))
