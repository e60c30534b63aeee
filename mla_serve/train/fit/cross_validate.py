"""Choose by cross-validation how far the fitted fusion may move away from the paper's rule.

A setting is the strength of the ridge, and whether the classes' prior is counted once. Every setting is cross-validated
over folds. Of those whose held-out NLL is within one standard error of the best, the most cautious is kept (the one-SE
rule: Breiman et al., Classification and Regression Trees, 1984). The paper's rule is the most cautious of all.

Corrupted copies of rows fit the discounts only. Fitting temperatures on them too was tried on three runs: on two, any
weight of the copies cost accuracy and NLL on clean rows and gained nothing under a shift of speakers; on the third, whose
test had another speaker, other writers and languages, they cost 4 points of accuracy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mla_serve.evaluation.scores import patterns
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.train.fit.evidence import Evidence
from mla_serve.train.fit.formula import fit, fit_discounts

RIDGES = (1e-1, 1e-2, 1e-3)
ROWS = 500
"""The ridges are for so many rows or more. With fewer, the ridge grows: it counts as much as a fixed number of rows. Without that,
few rows that are all answered rightly let the scales grow: on breast cancer with 40 rows, NLL .215 and .976 at worst (of 12
draws) became .131 and .188."""
UNBALANCED = 1.5  # the largest class has this many times the rows of the smallest: then the prior may matter
CORRUPTED = 0.5  # probability that a modality of a copy is corrupted


@dataclasses.dataclass(frozen=True)
class Setting:
    """ridge: infinite for the paper's rule. prior: the frequency of each class if it is counted once, else empty."""

    ridge: float
    prior: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Describe it in a note."""
        once = ", the classes' prior counted once" if self.prior else ""
        return "the paper's rule" if np.isinf(self.ridge) else f"ridge {self.ridge:g}{once}"

    def fit(self, clean: Evidence, corrupted: Evidence, names: tuple[str, ...], start: Fusion | None = None) -> Fusion:
        """Fit the formula to clean rows, then the discounts to clean and corrupted rows."""
        return fit_discounts(clean.and_also(corrupted), names, self.formula(clean, names, start))

    def formula(self, clean: Evidence, names: tuple[str, ...], start: Fusion | None = None) -> Fusion:
        """Fit the formula alone."""
        if np.isinf(self.ridge):
            return Fusion.paper(names)
        ridge = self.ridge * max(1.0, ROWS / max(len(clean.targets), 1))
        return fit(clean, names, ridge, start, self.prior)


def choose_setting(
    clean: Evidence, names: tuple[str, ...], fold: Array, prior: Sequence[float] = ()
) -> tuple[Setting, str]:
    """Cross-validate the settings.

    Args: fold (N,), of each row; prior, the frequency of each class among the training rows.
    Returns: the setting and a note.
    """
    listed = patterns(len(names))

    def loss(setting: Setting) -> Array:
        return held_out(clean, fold, listed, lambda kept: setting.formula(clean.rows(kept), names))

    tried = tuple(prior) if len(names) > 1 and unbalanced(prior) else ()
    setting, note = most_cautious(loss, tried)
    return setting, f"fusion: {note}"


def unbalanced(prior: Sequence[float]) -> bool:
    """Return whether the classes differ so much in size that counting the prior once is worth a try."""
    return max(prior, default=1) > UNBALANCED * min(prior, default=1)


def most_cautious(loss: Callable[[Setting], Array], prior: tuple[float, ...] = ()) -> tuple[Setting, str]:
    """Return the most cautious setting whose held-out loss is within one standard error of the best.

    Args: loss, gives the NLL of every row (N,) under a setting; prior, if given, is tried too. Those settings come last.
    Returns: the setting and a note.
    """
    settings = [Setting(np.inf), *(Setting(ridge) for ridge in RIDGES)]
    settings += [Setting(ridge, prior) for ridge in RIDGES if prior]
    losses = np.array([loss(setting) for setting in settings])
    means = losses.mean(axis=1)
    best = int(means.argmin())
    error = (losses - losses[best]).std(axis=1) / np.sqrt(losses.shape[1])
    kept = int(np.flatnonzero(means <= means[best] + error)[0]) if best else 0
    return settings[kept], f"{settings[kept]}; held-out NLL {means[kept]:.4f}, the paper's {means[0]:.4f}"


def held_out(clean: Evidence, fold: Array, listed: Array, fit_to: Callable[[Array], Fusion]) -> Array:
    """Return the NLL of every row, averaged over its patterns, by a fusion fitted without its fold: (N,).

    Args: fold (N,); listed (K, M), the patterns that count; fit_to, fits to the rows of a mask (N,).
    """
    losses = np.zeros(len(clean.targets))
    for number in np.unique(fold):
        own = fold == number
        losses[own] = _nll(clean.rows(own), fit_to(~own), listed)
    return losses


def _nll(evidence: Evidence, fusion: Fusion, listed: Array) -> Array:
    """Return the NLL of each row, averaged over the patterns whose modalities it has: (N,)."""
    total, count = np.zeros(len(evidence.targets)), np.zeros(len(evidence.targets))
    for pattern in listed:
        usable = evidence.present[pattern].all(axis=0)
        if usable.any():
            part = evidence.rows(usable)
            mask = np.repeat(pattern[:, None], usable.sum(), axis=1)
            total[usable] += fusion.task.nll(fuse(part.opinions, mask, fusion).answers, part.targets)
            count[usable] += 1
    return total / np.maximum(count, 1)


def mix_rows(clean: Evidence, corrupted: Evidence, generator: np.random.Generator) -> Evidence:
    """Make copies of rows in which each modality is corrupted or clean, at random."""
    chosen = generator.random(clean.present.shape) < CORRUPTED
    return dataclasses.replace(
        clean,
        opinions=np.where(chosen[..., None], corrupted.opinions, clean.opinions),
        excess=np.where(chosen, corrupted.excess, clean.excess),
    )
