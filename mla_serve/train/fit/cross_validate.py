"""Choose by cross-validation how far the fitted fusion may move away from the paper's rule.

A setting is the strength of the ridge, and whether the prior is counted once. Every setting is cross-validated over folds.
Of those whose held-out NLL is within one standard error of the best, the most cautious is kept (the one-SE rule: Breiman et
al., Classification and Regression Trees, 1984). The paper's rule is the most cautious of all. With few rows it is kept
without a trial.

Each fold is fitted from the parameters that all rows gave, which are near. Where there are many rows or large opinions, some
of the rows are used, and only as many folds as a bounded number of computations allows.

Corrupted copies of rows fit the discounts only. Fitting temperatures on them too was tried on three runs: on two, any
weight of the copies cost accuracy and NLL on clean rows and gained nothing under a shift of speakers; on the third, whose
test had another speaker, other writers and languages, they cost 4 points of accuracy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mla_serve.fusion.formula import Array, Fusion
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import MOST_NUMBERS, Objective, fit, fit_discounts

RIDGES = (1e-1, 1e-2, 1e-3)
FEW_ROWS = 50
"""With fewer validation rows the paper's rule stays: five rows gave an NLL of 2.84, where the paper's rule has 1.28."""
CORRUPTED = 0.5  # probability that a modality of a copy is corrupted


@dataclasses.dataclass(frozen=True)
class Setting:
    """ridge: infinite for the paper's rule. prior: see Task.prior_of, if it is counted once, else empty."""

    ridge: float
    prior: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Describe it in a note."""
        once = ", the prior counted once" if self.prior else ""
        return "the paper's rule" if np.isinf(self.ridge) else f"ridge {self.ridge:g}{once}"

    def fit(self, clean: Evidence, corrupted: Evidence, names: tuple[str, ...], start: Fusion | None = None) -> Fusion:
        """Fit the formula to clean rows, then the discounts to clean and corrupted rows."""
        return fit_discounts(clean.and_also(corrupted), names, self.formula(clean, names, start))

    def formula(self, clean: Evidence, names: tuple[str, ...], start: Fusion | None = None) -> Fusion:
        """Fit the formula alone."""
        if np.isinf(self.ridge):
            return Fusion.paper(names, clean.task)
        return fit(clean, names, self.ridge, start, self.prior)


def choose_setting(
    clean: Evidence, names: tuple[str, ...], fold: Array, prior: Sequence[float] = ()
) -> tuple[Setting, str]:
    """Cross-validate the settings.

    Args: fold (N,), of each row; prior, what the training labels say, see Task.prior_of.
    Returns: the setting and a note.
    """
    paper = Fusion.paper(names, clean.task)
    starts = [paper]
    if len(names) > 1 and len(prior) and clean.task.prior_matters(prior):
        starts.append(dataclasses.replace(paper, prior=tuple(prior), prior_once=True))
    setting, note = most_cautious(clean, paper, starts, fold)
    return setting, f"fusion: {note}"


def most_cautious(
    clean: Evidence, paper: Fusion, starts: Sequence[Fusion], fold: Array, added: Sequence[str] = ()
) -> tuple[Setting, str]:
    """Return the most cautious setting whose held-out loss is within one standard error of the best.

    Args: paper, with nothing fitted; starts, from which each ridge is fitted; fold (N,), of each row; added, see `fit`.
    Returns: the setting and a note.
    """
    count = int(clean.present.any(axis=0).sum())
    if count < FEW_ROWS:
        rule = Setting(np.inf)
        return rule, f"{rule}; {count} validation rows are too few to fit another, which takes {FEW_ROWS}"
    settings = [Setting(np.inf)]
    losses: list[Array] = []
    for start in starts:
        objective = Objective(clean, start, added)
        if not losses:
            losses.append(objective.row_losses(paper))
        fitted = None
        for ridge in RIDGES:
            fitted = objective.fit(ridge, fitted)
            settings.append(Setting(ridge, tuple(start.prior) if start.prior_once and not added else ()))
            losses.append(held_out(objective, fold, ridge, fitted))
    measured = ~np.isnan(losses).any(axis=0)
    table = np.array(losses)[:, measured]
    means = table.mean(axis=1)
    best = int(means.argmin())
    error = (table - table[best]).std(axis=1) / np.sqrt(table.shape[1])
    kept = int(np.flatnonzero(means <= means[best] + error)[0]) if best else 0
    return settings[kept], f"{settings[kept]}; held-out NLL {means[kept]:.4f}, the paper's {means[0]:.4f}"


def held_out(objective: Objective, fold: Array, ridge: float, start: Fusion) -> Array:
    """Return the mean NLL of each used row over its patterns, by a fusion fitted without its fold; NaN where not measured."""
    own = fold[objective.rows]
    numbers = np.unique(own)
    affordable = max(1, MOST_NUMBERS // max(objective.numbers, 1))
    losses = np.full(len(own), np.nan)
    for number in numbers[:affordable]:
        fitted = objective.fit(ridge, start, kept=own != number)
        losses[own == number] = objective.row_losses(fitted)[own == number]
    return losses


def mix_rows(clean: Evidence, corrupted: Evidence, generator: np.random.Generator) -> Evidence:
    """Make copies of rows in which each modality is corrupted or clean, at random."""
    chosen = generator.random(clean.present.shape) < CORRUPTED
    return dataclasses.replace(
        clean,
        opinions=np.where(chosen[..., None], corrupted.opinions, clean.opinions),
        excess=np.where(chosen, corrupted.excess, clean.excess),
    )
