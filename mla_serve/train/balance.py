"""What is done where some classes have many more rows than others (--balance).

Trained as it is, a model answers by the class frequencies of its training rows: a rare class is answered only where the
evidence outweighs its log prior. For an accuracy over rows that is right; for finding the rare class it is not.

none     nothing: answers assume the class frequencies of training
prior    the model is trained as it is, and answers assume that all classes are equally frequent (shift_prior in
         mla_serve/fusion/formula.py)
weights  the same answers, and the loss of a row is multiplied by the weight of its class, the same sum for each class
sampler  the same answers, and an epoch takes equally many rows of each class

Weights and sampler teach the heads that all classes are equally frequent. After training, log prior is added to the biases
of the heads, so that in every case the heads speak for the class frequencies of training. The fusion is fitted to
validation rows, which have these frequencies. The answers are shifted to equal frequencies afterwards, in every case alike.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np

from mla_serve.errors import ConfigError
from mla_serve.tasks import Label, Task

SKEWED = 10.0  # times the rows of the rarest class that the most frequent class has


@dataclasses.dataclass(frozen=True)
class Balance:
    """The method, a value of --balance, and the number of training rows of each class (C)."""

    method: str
    counts: tuple[int, ...]

    @property
    def log_prior(self) -> np.ndarray:
        """Return the log of each class's share of the training rows (C); one without a row counts as the largest."""
        counts = np.array(self.counts, dtype=float)
        counts[counts == 0] = counts.max()
        return np.log(counts / counts.sum())

    @property
    def class_weights(self) -> list[float]:
        """Return the factors (C) on the loss; their mean over the training rows is 1. Empty for the other methods."""
        if self.method != "weights":
            return []
        occurring = sum(count > 0 for count in self.counts)
        return [sum(self.counts) / (occurring * count) if count else 0.0 for count in self.counts]

    @property
    def samples_evenly(self) -> bool:
        """Whether an epoch takes equally many rows of each class."""
        return self.method == "sampler"

    @property
    def head_shift(self) -> list[float]:
        """Return what is added to the heads' biases after training (C), so that they contain the prior of the training rows."""
        return self.log_prior.tolist() if self.method in ("weights", "sampler") else []

    @property
    def prior_shift(self) -> list[float]:
        """Return what is added to fused answers (C): log of equal shares minus log prior. Empty for none."""
        if self.method == "none":
            return []
        return [float(value) for value in -np.log(len(self.counts)) - self.log_prior]


def make_balance(method: str, labels: Iterable[Label], task: Task) -> tuple[Balance, list[str]]:
    """Count the rows of each class. Returns: the balance, and a note where classes are skewed or a method was asked for.

    Raises: ConfigError for a method where the task has no classes.
    """
    if not task.exclusive:
        if method != "none":
            raise ConfigError(
                f"--balance {method}: balances classes, and {task.describe()} are predicted; leave it out"
            )
        return Balance(method, ()), []
    found = Counter(labels)
    counts = tuple(found[label] for label in task.names)
    few, many = (chosen(found.items(), key=lambda item: item[1]) for chosen in (min, max))
    skew = many[1] / few[1]
    if method == "none" and skew < SKEWED:
        return Balance(method, counts), []
    told = f"class {many[0]!r} has {skew:.0f} times the training rows of class {few[0]!r}; with --balance {method}"
    return Balance(method, counts), [f"{told}, {EFFECTS[method]}"]


EQUAL = "probabilities hold where all classes are equally frequent; --balance none keeps the frequencies of training"
EFFECTS = {
    "none": "answers and probabilities assume these frequencies, so a rare class is seldom answered; --balance prior assumes equal ones",
    "prior": EQUAL,
    "weights": f"the loss weighs each class the same, and {EQUAL}",
    "sampler": f"an epoch takes equally many rows of each class, and {EQUAL}",
}
