"""Head gradient modification (HGM): project the steps of the shared head away from the features of earlier turns.

The modalities take turns at one head. The step of one turn changes the answers of the others, unless it is orthogonal to
their features: for a step dW of the head and a feature vector r, the logits change by dW r. MLA (CVPR 2024, arXiv
2311.10707) therefore multiplies the head's gradient by a projector P with P r close to 0 for the mean
features r of earlier turns. P comes from orthogonal weights modification (OWM; Zeng et al., Nature Machine Intelligence
2019): after each turn, with the mean r of its features,

    q = P r        P <- P - q q^T / (alpha + r^T q)        P starts as the identity.

This is recursive least squares, by the Sherman-Morrison formula applied to each rank-one term. So with the means R of all
turns since the last reset as columns, and a constant alpha,

    P = alpha (alpha I + R R^T)^-1

which has eigenvalues in (0, 1]: close to 0 along directions that R holds, 1 orthogonal to them.

P only shrinks. A mean over a mini-batch is noisy, and the noise reaches all D directions. With D = 128 (on mfeat) the part
of a step that is kept falls from .95 after the first batch to .28 after 50 and .03 after 200: without a reset the head
freezes. So P is reset each epoch by default.

Deviations from the paper. It is the applied step that is projected, not the gradient: Adam rescales a projected gradient,
and momentum brings back directions of other turns. With plain SGD the two are the same. alpha is constant; the paper's
code lowers it from .1 to .01 within an epoch. The resets, and the variant `others`, are ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mla_serve.train.distributed import collectives

MODES = ("off", "epoch", "no-reset", "others")
"""Values of --hgm, beside a number of turns."""
ALIASES = {"never": "no-reset"}
"""Older names of the same values, which stored configurations hold."""
ALPHA = 0.1


def canonical(hgm: str | None) -> str | None:
    """Return the present name of a value of --hgm."""
    return ALIASES.get(hgm, hgm) if hgm else hgm


class RecursiveProjector:
    """The projector P of OWM, updated after each turn. See the module's text for the equations."""

    def __init__(self, width: int, reset: str | int, alpha: float = ALPHA) -> None:
        """Start from the identity, (D, D) float64.

        Args: reset, when P becomes the identity again: "epoch", "no-reset", or after this number of turns.
        """
        self.reset, self.alpha = reset, alpha
        self._width = width
        self.matrix: Tensor
        self._previous: Tensor | None
        self._turns: int
        self._start_anew()

    def turn(self, name: str) -> Tensor:  # noqa: ARG002
        """Return the projector (D, D) for the turn that begins, after adding the mean of the previous turn to it."""
        if isinstance(self.reset, int) and self._turns and self._turns % self.reset == 0:
            self._start_anew()
        if self._previous is not None:
            q = self.matrix @ self._previous
            self.matrix = self.matrix - torch.outer(q, q) / (self.alpha + self._previous @ q)
        self._turns += 1
        return self.matrix

    def observe(self, name: str, features: Tensor) -> None:  # noqa: ARG002
        """Keep the mean of this turn's features (B, D) over the rows of all processes, as they were before its step."""
        self._previous = collectives.row_mean(features.detach().double()).cpu()

    def start_epoch(self) -> None:
        """Reset the projector if it is to be reset each epoch."""
        if self.reset == "epoch":
            self._start_anew()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"matrix": self.matrix, "previous": self._previous, "turns": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.matrix, self._previous, self._turns = state["matrix"], state["previous"], state["turns"]

    def _start_anew(self) -> None:
        self.matrix = torch.eye(self._width, dtype=torch.float64)
        self._previous = None
        self._turns = 0


class OthersProjector:
    """Project out the span of the running mean features of the OTHER modalities: rank M - 1, and it does not shrink.

    P = I - U U^T, with an orthonormal basis U of those means. Ours.
    """

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
        """Update the running mean of a modality with the features (B, D) of its turn."""
        mean = collectives.row_mean(features.detach().double()).cpu()
        old = self._means.get(name, mean)
        self._means[name] = self.MOMENTUM * old + (1 - self.MOMENTUM) * mean

    def start_epoch(self) -> None:
        """Keep the means: they follow the features by themselves."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._means = state["means"]


Projector = RecursiveProjector | OthersProjector


def make_projector(hgm: str, width: int) -> Projector | None:
    """Build the projector for a value of --hgm: one of MODES, or a number of turns."""
    mode = canonical(hgm)
    if mode in ("off", None):
        return None
    if mode == "others":
        return OthersProjector(width)
    return RecursiveProjector(width, int(mode) if mode.isdigit() else mode)


def project_step(weight: Tensor, before: Tensor, projector: Tensor) -> float:
    """Replace the step that an optimiser has applied to the head by its projection.

    W <- W_before + (W_after - W_before) P. With plain SGD this equals the paper's projected gradient, (dL/dW) P.

    Args: weight (C, D), after the step, changed in place; before (C, D); projector (D, D).
    Returns: ||dW P|| / ||dW||, the part of the step that was kept.
    """
    step = weight.detach().double() - before.double()
    kept = step @ projector.to(step.device)
    with torch.no_grad():
        weight.copy_(before + kept.to(weight.dtype))
    return float(kept.norm() / step.norm().clamp_min(1e-30))
