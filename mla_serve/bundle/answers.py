"""Make predictions from fused answers: what is common to all tasks here, and what each task adds in WORDINGS.

A new task is a class of results in PREDICTIONS (results.py), and a wording here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mla_serve.bundle.results import (
    DEFAULT_TOP_K,
    PREDICTIONS,
    ClassOpinion,
    Interval,
    LabelDecision,
    LabelProbability,
    LabelsOpinion,
    NumberOpinion,
    Opinion,
    Prediction,
    PredictionSet,
)
from mla_serve.fusion.explain import Explained
from mla_serve.inputs import Array
from mla_serve.tasks import Bounds, Labels, Number, Task

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What there is to say of N modalities, each in one sample.

    alone, without, together: (N, A), the answer of the modality by itself, of all the others, and of all. only: (N,), whether
    there are no others.
    """

    alone: Array
    without: Array
    together: Array
    only: Array


@dataclasses.dataclass(frozen=True)
class Request:
    """How samples are answered: names of the modalities, fusion rule, number of labels to list, coverage or None."""

    names: Sequence[str]
    rule: str
    top_k: int | None
    coverage: float | None


def predictions(
    task: Task, explained: Explained, present: Array, unfamiliarity: Array, bounds: Bounds | None, request: Request
) -> list[Prediction]:
    """Make the prediction of each sample.

    Args: present and unfamiliarity, (M, B), see GraphOutputs; bounds, where a coverage was asked for.
    """
    wording, answers = WORDINGS[task.name], explained.fused.answers
    own = wording.answer(task, answers, request.top_k or DEFAULT_TOP_K)
    bound = [{}] * len(answers) if bounds is None else wording.bound(task, answers, bounds, request.coverage)
    opinions = _opinions(task, wording, explained, present, unfamiliarity, request)
    prediction: Callable[..., Prediction] = PREDICTIONS[task.name]
    return [
        prediction(
            **fields,
            entropy=nats,
            fusion=request.rule,
            modalities=said,
            missing=[name for name in request.names if name not in said],
            **more,
        )
        for fields, nats, said, more in zip(own, task.answer_entropy(answers).tolist(), opinions, bound, strict=True)
    ]


def _opinions(
    task: Task, wording: Wording, explained: Explained, present: Array, unfamiliarity: Array, request: Request
) -> list[dict[str, Opinion]]:
    """Return the opinions of the present modalities, by sample."""
    b, m = np.nonzero(present.T)
    only = present.sum(axis=0)[b] == 1
    parts = Parts(explained.alone[m, b], explained.without[m, b], explained.fused.answers[b], only)
    columns = (
        explained.fused.weights[m, b].tolist(),
        explained.influence[m, b].tolist(),
        task.answer_entropy(parts.alone).tolist(),
        unfamiliarity[m, b].tolist(),
    )
    opinions: list[dict[str, Opinion]] = [{} for _ in range(present.shape[1])]
    for sample, modality, fields, weight, influence, nats, unfamiliar in zip(
        b.tolist(), m.tolist(), wording.says(task, parts, request.top_k or DEFAULT_TOP_K), *columns, strict=True
    ):
        opinions[sample][request.names[modality]] = wording.opinion(
            weight=weight,
            influence=influence,
            entropy=nats,
            unfamiliarity=None if math.isnan(unfamiliar) else unfamiliar,
            **fields,
        )
    return opinions


def _class_answer(task: Task, answers: Array, top_k: int) -> list[Fields]:
    """Name the most probable class, and list the first `top_k`: log-probabilities (B, C)."""
    ordered = _most_probable(task, answers, top_k)
    return [
        {
            "label": first[0][0],
            "probability": first[0][1],
            "probabilities": [LabelProbability(label, p) for label, p in first],
        }
        for first in ordered
    ]


def _class_says(task: Task, parts: Parts, _: int) -> list[Fields]:
    best, highest = parts.alone.argmax(axis=-1).tolist(), task.plain(parts.alone.max(axis=-1)).tolist()
    return [{"label": task.names[c], "probability": p} for c, p in zip(best, highest, strict=True)]


def _labels_answer(task: Task, answers: Array, top_k: int) -> list[Fields]:
    """Name the labels that reach their threshold, and list the first `top_k`: log-odds (B, C)."""
    assert isinstance(task, Labels)
    thresholds = dict(zip(task.names, task.threshold_of_each().tolist(), strict=True))
    answered = [{label for label, _ in own} for own in _above_thresholds(task, answers)]
    return [
        {
            "labels": [label for label, _ in every if label in own],
            "probabilities": [LabelDecision(label, p, thresholds[label], label in own) for label, p in every[:top_k]],
        }
        for every, own in zip(_most_probable(task, answers, len(task.names)), answered, strict=True)
    ]


def _labels_say(task: Task, parts: Parts, top_k: int) -> list[Fields]:
    """Name the labels that a modality by itself, and the others without it, answer; give its probability of the listed labels."""
    listed = np.argsort(-parts.together, kind="stable")[:, :top_k]
    own = np.take_along_axis(task.plain(parts.alone), listed, axis=1)
    above, rest = _above_thresholds(task, parts.alone), _above_thresholds(task, parts.without)
    return [
        {
            "labels": [LabelProbability(label, p) for label, p in said],
            "probabilities": [LabelProbability(task.names[c], p) for c, p in zip(labels, chances, strict=True)],
            "without": None if only else [label for label, _ in left],
        }
        for said, left, labels, chances, only in zip(
            above, rest, listed.tolist(), own.tolist(), parts.only.tolist(), strict=True
        )
    ]


def _above_thresholds(task: Task, answers: Array) -> list[list[tuple[str, float]]]:
    """Return the labels that are answered with their probabilities, the most probable first."""
    assert isinstance(task, Labels)
    return _most_probable(task, answers, len(task.names), task.chosen(answers))


def _most_probable(task: Task, answers: Array, most: int, among: Array | None = None) -> list[list[tuple[str, float]]]:
    """List labels with their probabilities, the most probable first. Args: among (B, C) bool, which ones; default: all."""
    order = np.argsort(-answers, kind="stable")[:, :most].tolist()
    chosen = [[True] * len(task.names)] * len(answers) if among is None else among.tolist()
    rows = zip(order, task.plain(answers).tolist(), chosen, strict=True)
    return [[(task.names[c], p[c]) for c in own if there[c]] for own, p, there in rows]


def _set(task: Task, answers: Array, bounds: Bounds, coverage: float | None) -> list[Fields]:
    """Name the labels of each prediction set."""
    labels = [[label for label, _ in own] for own in _most_probable(task, answers, len(task.names), bounds.inside)]
    bases = zip(labels, bounds.rows.tolist(), bounds.pooled.tolist(), strict=True)
    return [{"prediction_set": PredictionSet(own, float(coverage or 0), *basis)} for own, *basis in bases]


def _number_answer(task: Task, answers: Array, _: int) -> list[Fields]:
    """Return value and deviation in the user's unit: mean and variance (B, 2)."""
    assert isinstance(task, Number)
    return [{**fields, "unit": task.unit} for fields in _value_and_deviation(task, answers)]


def _number_says(task: Task, parts: Parts, _: int) -> list[Fields]:
    assert isinstance(task, Number)
    return _value_and_deviation(task, parts.alone)


def _value_and_deviation(task: Number, answers: Array) -> list[Fields]:
    values, deviations = task.value(answers).tolist(), task.deviation_of(answers).tolist()
    return [{"value": value, "deviation": own} for value, own in zip(values, deviations, strict=True)]


def _interval(task: Task, _: Array, bounds: Bounds, coverage: float | None) -> list[Fields]:
    """Return each interval in the user's unit. An infinite end is not known."""
    assert isinstance(task, Number)
    assert bounds.low is not None
    assert bounds.high is not None
    ends = (_finite(task, bounds.low), _finite(task, bounds.high))
    return [
        {"interval": Interval(low, high, float(coverage or 0), rows, pooled)}
        for low, high, rows, pooled in zip(*ends, bounds.rows.tolist(), bounds.pooled.tolist(), strict=True)
    ]


def _finite(task: Number, ends: Array) -> list[float | None]:
    """Return standardised ends in the user's unit; None for an infinite one."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = task.restore(ends).tolist()
    return [value if known else None for value, known in zip(values, np.isfinite(ends).tolist(), strict=True)]


@dataclasses.dataclass(frozen=True)
class Wording:
    """How the answers of a task become fields of its results.

    answer: task, answers (B, A), number of labels to list -> fields of each prediction.
    says: task, parts of N opinions, number of labels to list -> fields of each opinion.
    bound: task, answers, bounds, coverage -> the prediction set or interval of each prediction.
    """

    answer: Callable[[Task, Array, int], list[Fields]]
    opinion: Callable[..., Opinion]
    says: Callable[[Task, Parts, int], list[Fields]]
    bound: Callable[[Task, Array, Bounds, float | None], list[Fields]]


WORDINGS: Mapping[str, Wording] = {
    "classes": Wording(_class_answer, ClassOpinion, _class_says, _set),
    "labels": Wording(_labels_answer, LabelsOpinion, _labels_say, _set),
    "number": Wording(_number_answer, NumberOpinion, _number_says, _interval),
}
