"""Head gradient modification (HGM): project the steps of the shared head away from the features of other modalities.

The modalities take turns at one head. The step of one turn changes the answers of the others, unless it is orthogonal to
their features: for a step dW of the head and a feature vector r, the logits change by dW r. MLA (CVPR 2024, arXiv
2311.10707) therefore multiplies the head's gradient by a projector P with P r close to 0 for the features r of
other turns. Here P is one of these.

subspace (the default). Gradient projection memory (Saha, Garg, Roy, ICLR 2021), with running features in place of
those of finished tasks. For each modality, N_m is the running mean of H^T H / ||H||^2 over the features H (rows, D) of its
turns. In a turn of m, the columns of U are the leading eigenvectors of the sum of the others' N: the fewest that hold 90 % of
its trace, and D / 2 at most. Then

    P = I - U U^T

which is 0 along the directions that the others' features use most, and 1 orthogonal to them. N_m has trace 1, so every
modality counts alike whatever the scale of its features, and P does not depend on how many turns there have been.

epoch, no-reset, or a number of turns. Orthogonal weights modification (OWM; Zeng et al., Nature Machine Intelligence 2019),
which MLA uses: after each turn, with the mean r of its features,

    q = P r        P <- P - q q^T / (alpha + r^T q)        P starts as the identity.

This is recursive least squares, by the Sherman-Morrison formula applied to each rank-one term. So with the means R of all
turns since the last reset as columns, and a constant alpha,

    P = alpha (alpha I + R R^T)^-1

which has eigenvalues in (0, 1]: close to 0 along directions that R holds, 1 orthogonal to them. A mean over a mini-batch
is noisy, and the noise reaches all D directions, so this P falls towards 0 in all of them: it is a decay of the head's
learning rate, and how far it goes depends on the number of batches (benchmarks/accuracy/hgm.md). It is kept for comparison
with the paper, with a reset each epoch, never, or after every so many turns.

Deviations from the paper. It is the applied step that is projected, not the gradient: Adam rescales a projected gradient,
and momentum brings back directions of other turns. With plain SGD the two are the same. alpha is constant; the paper's
code lowers it from .1 to .01 within an epoch. The subspace and the resets are ours.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from mla_serve.errors import ConfigError
from mla_serve.train.distributed import collectives

DEFAULT = "subspace"
FORMER_DEFAULT = "epoch"
"""That of runs that do not say which they have."""
MODES = (DEFAULT, "off", "epoch", "no-reset")
"""Values of --hgm, beside a number of turns."""
OLDER = ("others",)
"""Former values of --hgm, which stored recipes hold. They can be exported, not trained."""
ALIASES = {"never": "no-reset"}
"""Older names of the same values, which stored configurations hold."""
ALPHA = 0.1


def canonical(hgm: str) -> str:
    """Return the present name of a value of --hgm."""
    return ALIASES.get(hgm, hgm)


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


class SubspaceProjector:
    """Project out the leading directions of the features of the OTHER modalities. See the module's text."""

    SHARE = 0.9
    """Of the trace, which the directions hold."""
    MOMENTUM = 0.9
    EVERY = 5
    """Turns of a modality for which its projector is used: an eigendecomposition costs more than a small encoder's step."""

    def __init__(self, width: int) -> None:
        """Start with nothing to protect."""
        self._width = width
        self._moments: dict[str, Tensor] = {}
        self._total = torch.zeros(width, width, dtype=torch.float64)
        self._projectors: dict[str, Tensor] = {}
        self._turns: dict[str, int] = {}

    def turn(self, name: str) -> Tensor:
        """Return the projector (D, D) for a turn of `name`."""
        turns = self._turns.get(name, 0)
        if turns < self.EVERY or turns % self.EVERY == 0:
            self._projectors[name] = self._project(self._total - self._moments.get(name, 0.0))
        self._turns[name] = turns + 1
        return self._projectors[name]

    def _project(self, moment: Tensor) -> Tensor:
        """Return I - U U^T for the leading eigenvectors U of a second moment (D, D)."""
        identity = torch.eye(self._width, dtype=torch.float64)
        if not moment.trace() >= 1e-9:  # no other modality has been seen, or its features are 0 or not finite
            return identity
        ascending, vectors = torch.linalg.eigh(moment)
        held = ascending.flip(0).cumsum(0)
        rank = min(int((held < self.SHARE * held[-1]).sum()) + 1, self._width // 2)
        basis = vectors[:, self._width - rank :]
        return identity - basis @ basis.T

    def observe(self, name: str, features: Tensor) -> None:
        """Update the running moment of a modality with the features (B, D) of its turn, those of all processes."""
        h = features.detach().double()
        moment = h.T @ h
        collectives.all_reduce([moment])
        moment = (moment / moment.trace().clamp_min(1e-300)).cpu()
        old = self._moments.get(name)
        new = moment if old is None else self.MOMENTUM * old + (1 - self.MOMENTUM) * moment
        self._total = self._total + new - (0.0 if old is None else old)
        self._moments[name] = new

    def start_epoch(self) -> None:
        """Keep the moments: they follow the features by themselves."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "moments": self._moments,
            "total": self._total,
            "projectors": self._projectors,
            "turns": self._turns,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._moments, self._total = dict(state["moments"]), state["total"]
        self._projectors, self._turns = dict(state["projectors"]), dict(state["turns"])


Projector = RecursiveProjector | SubspaceProjector


def make_projector(hgm: str, width: int) -> Projector | None:
    """Build the projector for a value of --hgm: one of MODES, or a number of turns. Raises: ConfigError for another one."""
    mode = canonical(hgm)
    turns = int(mode) if re.fullmatch("[1-9][0-9]*", mode) else None
    if mode not in MODES and turns is None:
        raise ConfigError(f"--hgm {hgm}: expected one of {', '.join(MODES)} or a number of turns, 1 or more")
    if mode == "off":
        return None
    if mode == DEFAULT:
        return SubspaceProjector(width)
    return RecursiveProjector(width, mode if turns is None else turns)


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
