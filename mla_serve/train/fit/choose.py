"""Choose how far the fitted fusion may go from the paper's rule: the ridge, and how the classes' prior counts.

Every setting is cross-validated over folds. Of those whose held-out NLL is within one standard error of the best, the most
cautious is kept (Breiman et al., 1984), and the paper's point where no setting is better than it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mla_serve.evaluation.scores import patterns
from mla_serve.fusion.formula import Array, Fusion
from mla_serve.fusion.rules import fuse
from mla_serve.train.fit.formula import Evidence, fit, fit_discounts

RIDGES = (1e-1, 1e-2, 1e-3)
UNBALANCED = 1.5  # times as many rows in one class as in another, for the prior to matter
SPOILED = 0.5  # the chance that a modality of a copy is spoiled


@dataclasses.dataclass(frozen=True)
class Setting:
    """ridge, infinite for the paper's point; copies, how much a spoiled copy of a row counts beside the row; prior, each
    class's share where it is to count once.

    Copies are 0 in every setting that is tried: measured on two runs, any weight cost accuracy and NLL on unspoiled rows
    and gained nothing under a shift of speakers; on a third, with another speaker, writers and languages in its test, they
    cost 4 points. They fit the discounts, which is where they help.
    """

    ridge: float
    copies: float = 0.0
    prior: tuple[float, ...] = ()

    def __str__(self) -> str:
        """Say it in a note."""
        once = ", the classes' prior counted once" if self.prior else ""
        return "the paper's point" if np.isinf(self.ridge) else f"ridge {self.ridge:g}{once}"

    def fit(self, clean: Evidence, spoiled: Evidence, names: tuple[str, ...], start: Fusion | None = None) -> Fusion:
        """Fit the formula, then the discounts on rows and copies alike."""
        return fit_discounts(clean.and_also(spoiled), names, self.formula(clean, spoiled, names, start))

    def formula(
        self, clean: Evidence, spoiled: Evidence, names: tuple[str, ...], start: Fusion | None = None
    ) -> Fusion:
        """Fit the formula alone."""
        if np.isinf(self.ridge):
            return Fusion.paper(names)
        rows = clean.and_also(spoiled.times(self.copies)) if self.copies else clean
        return fit(rows, names, self.ridge, start, self.prior)


def choose(
    clean: Evidence,
    spoiled: Evidence,
    names: tuple[str, ...],
    fold: Array,
    prior: Sequence[float] = (),
) -> tuple[Setting, str]:
    """Cross-validate the settings.

    Args: clean and spoiled, the same rows; fold (N,); prior, each class's share of the training rows.
    Returns: the setting and a note.
    """
    listed = patterns(len(names))

    def loss(setting: Setting) -> Array:
        fit_to = lambda kept: setting.formula(clean.rows(kept), spoiled.rows(kept), names)  # noqa: E731
        return held_out(clean, fold, listed, fit_to)

    tried = tuple(prior) if len(names) > 1 and unbalanced(prior) else ()
    setting, says = most_cautious(loss, tried)
    return setting, f"fusion: {says}"


def unbalanced(prior: Sequence[float]) -> bool:
    """Say whether classes are so unlike in size that counting them once is worth a try."""
    return max(prior, default=1) > UNBALANCED * min(prior, default=1)


def most_cautious(loss: Callable[[Setting], Array], prior: tuple[float, ...] = ()) -> tuple[Setting, str]:
    """Take the most cautious setting whose held-out loss is within one standard error of the best.

    Args: loss, gives the NLL of every row (N,) under a setting; prior, to be tried as what counts once, after all that
    counts it as the paper does.
    Returns: the setting and a note.
    """
    settings = [Setting(np.inf), *(Setting(ridge) for ridge in RIDGES)]
    settings += [Setting(ridge, prior=prior) for ridge in RIDGES if prior]
    losses = np.array([loss(setting) for setting in settings])
    means = losses.mean(axis=1)
    best = int(means.argmin())
    error = (losses - losses[best]).std(axis=1) / np.sqrt(losses.shape[1])
    kept = int(np.flatnonzero(means <= means[best] + error)[0]) if best else 0
    return settings[kept], f"{settings[kept]}; held-out NLL {means[kept]:.4f}, the paper's {means[0]:.4f}"


def mixed(clean: Evidence, spoiled: Evidence, generator: np.random.Generator) -> Evidence:
    """Make copies in which each modality is spoiled or not, by chance."""
    chosen = generator.random(clean.present.shape) < SPOILED
    return dataclasses.replace(
        clean,
        logits=np.where(chosen[..., None], spoiled.logits, clean.logits),
        excess=np.where(chosen, spoiled.excess, clean.excess),
    )


def held_out(clean: Evidence, fold: Array, listed: Array, fit_to: Callable[[Array], Fusion]) -> Array:
    """NLL of every row, averaged over the patterns that it has, by a fusion fitted without its fold: (N,).

    Args: fold (N,); listed (K, M), the patterns that count; fit_to, fits to the rows of a mask (N,).
    """
    losses = np.zeros(len(clean.labels))
    for number in np.unique(fold):
        own = fold == number
        losses[own] = _nll(clean.rows(own), fit_to(~own), listed)
    return losses


def _nll(evidence: Evidence, fusion: Fusion, listed: Array) -> Array:
    """NLL of each row, averaged over the patterns that it has: (N,)."""
    total, count = np.zeros(len(evidence.labels)), np.zeros(len(evidence.labels))
    for pattern in listed:
        usable = evidence.present[pattern].all(axis=0)
        if usable.any():
            part = evidence.rows(usable)
            mask = np.repeat(pattern[:, None], usable.sum(), axis=1)
            log_p = fuse(part.logits, mask, fusion).log_probabilities
            total[usable] -= log_p[np.arange(len(log_p)), part.labels]
            count[usable] += 1
    return total / np.maximum(count, 1)
