"""What an evaluation shows of one task and not of the others, in DETAILS. A new task is three functions and its entry.

    classes  reliability by confidence; how often the rows of each class got each answer
    labels   reliability by the probability of a label; precision, recall and F1 of each label
    number   errors and covered shares by the predicted deviation; predicted against true values

Symbols: B rows, C classes or labels. answers and targets as of mla_serve/tasks/base.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from mla_serve.decimals import percent, with_decimals
from mla_serve.fusion.formula import Array
from mla_serve.tasks import Labels, Number, Task
from mla_serve.tasks.base import BINS

QUINTILES = 5
MOST_POINTS = 500  # of predicted against true values
QUANTILE = 1.6448536269514722  # of the normal distribution, for the central 90 %


@dataclasses.dataclass(frozen=True)
class Wrong:
    """An answer that is wrong, or far off, as people read it: the answer, how it was given, the truth.

    "7", "was answered with 98.2 %", "1"; "crime", "got a probability of 97.0 %", "drama, comedy"; "310,000 USD", "was answered with
    a deviation of 20,000", "525,000 USD".
    """

    answer: str
    how: str
    truth: str


@dataclasses.dataclass(frozen=True)
class Details:
    """The functions of one task.

    reliability: (task, answers, targets) -> points of a diagram, each with its number of "rows".
    table: (task, answers, targets) -> what `name` holds in the results of an evaluation.
    surprise: (task, answers, targets) -> (B,), how far off an answer is for how sure it is; 0 or less where it is right.
    describe: (task, answer (A,), target) -> the answer and the truth in words.
    """

    name: str
    reliability: Callable[[Task, Array, Array], list[dict[str, float]]]
    table: Callable[[Task, Array, Array], Any]
    surprise: Callable[[Task, Array, Array], Array]
    describe: Callable[[Task, Array, Array], Wrong]


# ---- classes


def confidence_bins(task: Task, answers: Array, targets: Array) -> list[dict[str, float]]:  # noqa: ARG001
    """Compare accuracy with confidence in bins of equal width: the points of a reliability diagram, without empty bins."""
    return _bins(np.exp(answers.max(axis=1)), answers.argmax(axis=1) == targets)


def confusion(task: Task, answers: Array, targets: Array) -> list[list[int]]:  # noqa: ARG001
    """Count the answers to the rows of each class: [class][answer]."""
    classes = answers.shape[1]
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (targets, answers.argmax(axis=1)), 1)
    return [[int(count) for count in row] for row in table]


def _confidence_if_wrong(task: Task, answers: Array, targets: Array) -> Array:  # noqa: ARG001
    return np.where(answers.argmax(axis=1) == targets, 0.0, np.exp(answers.max(axis=1)))


def _wrong_class(task: Task, answer: Array, target: Array) -> Wrong:
    best = int(answer.argmax())
    return Wrong(task.names[best], f"was answered with {percent(float(np.exp(answer[best])))}", task.names[int(target)])


# ---- labels


def probability_bins(task: Task, answers: Array, targets: Array) -> list[dict[str, float]]:
    """Compare the probability of labels with the share of rows that have them, over every label that is known of a row.

    The keys are those of `confidence_bins`: "confidence" is the probability, "accuracy" the share; "rows" counts labels.
    """
    known = ~np.isnan(targets)
    return _bins(task.plain(answers)[known], targets[known] > 0)


def label_table(task: Task, answers: Array, targets: Array) -> dict[str, dict[str, float]]:
    """Measure each label: {label: {"precision", "recall", "f1", "threshold", "rows"}}; "rows" have the label.

    Precision is 0 where the label is never answered, recall where no row has it.
    """
    labels = cast(Labels, task)
    known = ~np.isnan(targets)
    truth, chosen = np.where(known, targets, 0) > 0, labels.chosen(answers) & known
    hits, having, answered = ((truth & chosen).sum(axis=0), truth.sum(axis=0), chosen.sum(axis=0))
    thresholds = labels.threshold_of_each()
    return {
        name: {
            "precision": float(hits[c] / max(answered[c], 1)),
            "recall": float(hits[c] / max(having[c], 1)),
            "f1": float(2 * hits[c] / max(having[c] + answered[c], 1)),
            "threshold": float(thresholds[c]),
            "rows": int(having[c]),
        }
        for c, name in enumerate(labels.labels)
    }


def _off(task: Task, answers: Array, targets: Array) -> Array:
    """Return how far the probability of each label is from the truth, where it is on the wrong side of its threshold."""
    truth = targets > 0
    wrong = (cast(Labels, task).chosen(answers) != truth) & ~np.isnan(targets)
    off: Array = np.where(wrong, np.abs(task.plain(answers) - truth), 0.0)
    return off


def _largest_off(task: Task, answers: Array, targets: Array) -> Array:
    largest: Array = _off(task, answers, targets).max(axis=1, initial=0.0)
    return largest


def _wrong_label(task: Task, answer: Array, target: Array) -> Wrong:
    worst = int(_off(task, answer[None], target[None])[0].argmax())
    having = [name for name, there in zip(task.names, target, strict=True) if there > 0]
    return Wrong(
        task.names[worst],
        f"got a probability of {percent(float(task.plain(answer)[worst]))}",
        ", ".join(having) or "no label",
    )


# ---- numbers


def deviation_quintiles(task: Task, answers: Array, targets: Array) -> list[dict[str, float]]:
    """Compare errors with the predicted deviation, from the fifth of the rows with the smallest to that with the largest.

    {"deviation", "rmse"} are means of the standardised target: with right deviations they are equal. "mae" is in the user's
    unit, "coverage" the share of the rows inside the central 90 % of the answer.
    """
    number = cast(Number, task)
    deviation, error = np.sqrt(answers[:, 1]), answers[:, 0] - targets
    absolute = np.abs(number.value(answers) - number.restore(targets))
    return [
        {
            "deviation": float(np.sqrt(np.square(deviation[rows]).mean())),
            "rmse": float(np.sqrt(np.square(error[rows]).mean())),
            "mae": float(absolute[rows].mean()),
            "coverage": float((np.abs(error[rows]) <= QUANTILE * deviation[rows]).mean()),
            "rows": len(rows),
        }
        for rows in np.array_split(np.argsort(deviation, kind="stable"), QUINTILES)
        if len(rows)
    ]


def residuals(task: Task, answers: Array, targets: Array) -> dict[str, Any]:
    """Return the quintiles, and up to MOST_POINTS rows as {"value", "low", "high", "true"} in the user's unit.

    low and high are the ends of the central 90 % of the answer.
    """
    number = cast(Number, task)
    chosen = np.sort(np.random.default_rng(0).permutation(len(targets))[:MOST_POINTS])
    mean, reach = answers[chosen, 0], QUANTILE * np.sqrt(answers[chosen, 1])
    columns = {"value": mean, "low": mean - reach, "high": mean + reach, "true": targets[chosen]}
    restored = {name: number.restore(values.astype(np.float64)).tolist() for name, values in columns.items()}
    points = [dict(zip(restored, values, strict=True)) for values in zip(*restored.values(), strict=True)]
    return {"quintiles": deviation_quintiles(task, answers, targets), "points": points}


def _deviations_off(task: Task, answers: Array, targets: Array) -> Array:  # noqa: ARG001
    deviations: Array = np.abs(answers[:, 0] - targets) / np.sqrt(answers[:, 1])
    return deviations


def _far_off(task: Task, answer: Array, target: Array) -> Wrong:
    number = cast(Number, task)
    value, deviation, truth = (
        with_decimals(float(one), number.decimals)
        for one in (number.value(answer), number.deviation_of(answer), number.restore(np.asarray(target, np.float64)))
    )
    unit = f" {number.unit}" if number.unit else ""
    return Wrong(value + unit, f"was answered with a deviation of {deviation}", truth + unit)


def _bins(confidence: Array, right: Array) -> list[dict[str, float]]:
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(right[index == b].mean()),
            "rows": int(np.sum(index == b)),
        }
        for b in np.unique(index)
    ]


DETAILS = {
    "classes": Details("confusion", confidence_bins, confusion, _confidence_if_wrong, _wrong_class),
    "labels": Details("labels", probability_bins, label_table, _largest_off, _wrong_label),
    "number": Details("residuals", deviation_quintiles, residuals, _deviations_off, _far_off),
}
