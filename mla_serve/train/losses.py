"""The loss of every task, row by row. A new task is a function here and its entry in LOSSES, and in LEAST if it has a least value."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from mla_serve.tasks.number import LOG_VARIANCE

BETA = 0.5


def classes(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of logits (B, C) and classes (B,): (B,)."""
    return F.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="none")


def labels(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:  # noqa: ARG001
    """Return the mean binary cross-entropy over the known labels: logits and targets (B, C), NaN where not known -> (B,).

    Without smoothing: it would teach that no label is rarer than smoothing / 2.
    """
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(outputs, targets.nan_to_num(), reduction="none")
    return (losses * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)


def number(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:  # noqa: ARG001
    """Return the beta-NLL of means and log-variances (B, 2) and standardised targets (B,): (B,).

    Each row's Gaussian NLL is weighted by its variance to the power BETA. Without that, rows with a large variance hardly
    teach the mean. Source: Seitzer et al., ICLR 2022, with the beta that they recommend.
    """
    mean, log_variance = outputs[:, 0], outputs[:, 1].clamp(*LOG_VARIANCE)
    nll = 0.5 * (log_variance + (targets - mean).square() / log_variance.exp())
    return nll * log_variance.exp().detach() ** BETA


Loss = Callable[[Tensor, Tensor, float], Tensor]
LOSSES: dict[str, Loss] = {loss.__name__: loss for loss in (classes, labels, number)}


def least_cross_entropy(count: int, smoothing: float) -> float:
    """Return the entropy of a smoothed target over `count` classes: no logits have a lower cross-entropy with it."""
    other = smoothing / count
    shares = [1 - smoothing + other, *[other] * (count - 1)]
    return -sum(share * math.log(share) for share in shares if share)


LEAST: dict[str, Callable[[int, float], float]] = {
    "classes": least_cross_entropy,
    "labels": lambda *_: 0.0,
}
"""Task -> the least value that its loss can have, from the number of outputs and the label smoothing.

The beta-NLL of a number is not here: it falls below any bound as the variance falls, so losses of it have no ratio.
"""


def loss_of_rows(task: str, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the loss of each row (B,). Args: task, key of LOSSES; outputs (B, O) of a head; targets, see Task.encode."""
    return LOSSES[task](outputs, targets.to(outputs) if targets.is_floating_point() else targets, smoothing)
