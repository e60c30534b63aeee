"""The distributions of each task in torch, so that the fit can differentiate them. A new task adds a class and a line here.

They are the same functions as those of the task (mla_serve/tasks/), which the fused answers are computed with. A test
compares the two for every task.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor
from torch.nn import functional

from mla_serve.tasks import TASKS, Classes, Labels, Number, Task
from mla_serve.tasks.number import LEAST_PRECISION, LOG_2_PI, LOG_VARIANCE


class Family(abc.ABC):
    """The distributions of an opinion, by natural parameters eta (..., G, P), see mla_serve/tasks/base.py."""

    @abc.abstractmethod
    def natural(self, outputs: Tensor) -> Tensor:
        """Return the natural parameters of a head's outputs: (..., O) -> (..., G, P)."""

    @abc.abstractmethod
    def entropy(self, eta: Tensor) -> Tensor:
        """Return the entropy in nats of every variable: (..., G, P) -> (..., G)."""

    @abc.abstractmethod
    def nll(self, eta: Tensor, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood of targets (N, ...): (K, N, G, P) -> (K, N)."""

    def without_prior(self, eta: Tensor, prior: Tensor) -> Tensor:
        """Subtract the prior's natural parameters (G, P) from opinions."""
        return eta - prior


class Categorical(Family):
    """One of C classes."""

    def natural(self, outputs: Tensor) -> Tensor:
        """Return the logits: (..., C) -> (..., 1, C)."""
        return outputs[..., None, :]

    def entropy(self, eta: Tensor) -> Tensor:
        """Return logsumexp(z) - sum p z."""
        total = torch.logsumexp(eta, dim=-1, keepdim=True)
        return total[..., 0] - (torch.exp(eta - total) * eta).sum(dim=-1)

    def nll(self, eta: Tensor, targets: Tensor) -> Tensor:
        """Return logsumexp(z) minus the true class's logit."""
        logits = eta[..., 0, :]
        rows = torch.arange(len(targets))
        return torch.logsumexp(logits, dim=-1) - logits[:, rows, targets]


class Bernoulli(Family):
    """Any subset of C labels, each by itself."""

    def natural(self, outputs: Tensor) -> Tensor:
        """Return the logits: (..., C) -> (..., C, 1)."""
        return outputs[..., None]

    def entropy(self, eta: Tensor) -> Tensor:
        """Return softplus(z) - sigmoid(z) z."""
        z = eta[..., 0]
        return functional.softplus(z) - torch.sigmoid(z) * z

    def nll(self, eta: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the labels that are known."""
        z, known = eta[..., 0], ~torch.isnan(targets)
        losses = functional.softplus(z) - torch.nan_to_num(targets) * z
        return (losses * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


class Gaussian(Family):
    """A standardised number."""

    def natural(self, outputs: Tensor) -> Tensor:
        """Return (mu / v, -1 / (2 v)) of mean and log-variance: (..., 2) -> (..., 1, 2)."""
        precision = torch.exp(-outputs[..., 1].clamp(*LOG_VARIANCE))
        return torch.stack([outputs[..., 0] * precision, -precision / 2], dim=-1)[..., None, :]

    def entropy(self, eta: Tensor) -> Tensor:
        """Return .5 log(2 pi e v)."""
        return 0.5 * (LOG_2_PI + 1 - torch.log((-2 * eta[..., 1]).clamp(min=LEAST_PRECISION)))

    def nll(self, eta: Tensor, targets: Tensor) -> Tensor:
        """Return minus the log-density."""
        precision = (-2 * eta[..., 0, 1]).clamp(min=LEAST_PRECISION)
        error = targets - eta[..., 0, 0] / precision
        return 0.5 * (LOG_2_PI - torch.log(precision) + precision * error.square())

    def without_prior(self, eta: Tensor, prior: Tensor) -> Tensor:
        """Subtract the prior. A precision below the prior's is clamped to it."""
        clamped = torch.stack([eta[..., 0], torch.minimum(eta[..., 1], prior[..., 1])], dim=-1)
        return clamped - prior


FAMILIES: dict[str, Family] = {Classes.name: Categorical(), Labels.name: Bernoulli(), Number.name: Gaussian()}
assert FAMILIES.keys() == TASKS.keys()


def family_of(task: Task) -> Family:
    """Return the distributions of a task."""
    return FAMILIES[task.name]
