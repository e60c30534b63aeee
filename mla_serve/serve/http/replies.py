"""What the replies of each task are: for GET /model and the OpenAPI document. A new task is an entry in TASK_REPLIES.

The classes of the replies (bundle/results.py) say which fields there are. The document adds what each field means, and which
of them are always there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.results import PREDICTIONS, ModelId
from mla_serve.serve.problems import Problem
from mla_serve.tasks import Classes, Labels, Number, Task

MOST_NAMED = 20  # classes in the title of the document
CONDITION = "It holds on average for rows like those of validation, with modalities missing at random."


@dataclasses.dataclass(frozen=True)
class LabelDescription:
    """A label, and the probability from which it is answered."""

    label: str
    threshold: float


@dataclasses.dataclass(frozen=True)
class NumberDescription:
    """The number that is predicted: its column, its unit, and its values in training.

    log: whether its logarithm was learned. decimals: of the training values. low, high: their range; null where not known.
    """

    column: str
    unit: str
    log: bool
    decimals: int
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class TaskReply:
    """How the answers of a task are described.

    purpose: what the model does, as the start of a sentence that ends with the modalities.
    target: the fields of GET /model about what is predicted.
    coverage: what the option asks for.
    promise: the name of what it adds to an answer.
    """

    purpose: Callable[[Any], str]
    target: Callable[[Any], dict[str, Any]]
    coverage: str
    promise: str


def _labels_of(task: Labels) -> dict[str, Any]:
    thresholds = task.threshold_of_each().tolist()
    return {"labels": [LabelDescription(*each) for each in zip(task.labels, thresholds, strict=True)]}


def _number_of(task: Number) -> dict[str, Any]:
    return {"number": NumberDescription(task.column, task.unit, task.log, task.decimals, task.low, task.high)}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


TASK_REPLIES: dict[type[Task], TaskReply] = {
    Classes: TaskReply(
        lambda task: f"Tells {_some(task.names)} apart",
        lambda task: {"classes": list(task.names)},
        "How often prediction_set shall hold the true class",
        "shortlist",
    ),
    Labels: TaskReply(
        lambda task: f"Finds which of {_some(task.names)} apply",
        _labels_of,
        "Which share of a sample's true labels prediction_set shall hold on average",
        "shortlist",
    ),
    Number: TaskReply(
        lambda task: f"Estimates {task.column or 'a number'}{f' in {task.unit}' if task.unit else ''}",
        _number_of,
        "How often interval shall hold the true value",
        "range",
    ),
}

SHARED = {
    "entropy": "How undecided it is, in nats; of a number, of its standardised value.",
    "rows": "Validation rows that this rests on.",
    "pooled": "Whether rows with other modalities than this sample's are among them, because too few have just these.",
    "coverage": f"As requested. {CONDITION}",
    "model": "The model that answered.",
    "label": "The label.",
    "probability": "Its probability, 0 to 1.",
}
ANSWER = {
    "fusion": "The fusion rule that was used.",
    "modalities": "One entry for each modality that was sent: its part in the answer, and what it says by itself.",
    "missing": "Modalities that were not sent.",
    "prediction_set": "The labels for the requested coverage; null when none was requested.",
}
OPINION = {
    "weight": "Its share in the answer; the weights add up to 1, but not under the rule energy.",
    "influence": "The log-probability of what is answered, minus that without this modality, in nats.",
    "unfamiliarity": "Share of validation inputs that are closer to the training data, 0 to 1; null where it is not known.",
}
DEVIATION = "Its standard deviation, in the same unit."
FIELDS: dict[str, dict[str, str]] = {
    "ClassPrediction": ANSWER
    | {
        "label": "The most probable class.",
        "probabilities": "The top_k most probable classes, the most probable first.",
    },
    "LabelsPrediction": ANSWER
    | {
        "labels": "The labels whose probability reaches their threshold, the most probable first; there may be none.",
        "probabilities": "The top_k most probable labels, answered or not, the most probable first.",
    },
    "NumberPrediction": ANSWER
    | {
        "value": "The value, in the unit of the training table.",
        "unit": "Its unit; empty where none is known.",
        "deviation": DEVIATION,
        "interval": "The range for the requested coverage; null when none was requested.",
    },
    "ClassOpinion": OPINION | {"label": "The most probable class of this modality by itself."},
    "LabelsOpinion": OPINION
    | {
        "labels": "The labels that this modality by itself gives at least their threshold.",
        "probabilities": "Its own probability of every label that the answer lists, in the same order.",
        "without": "The labels that would be answered without this modality; null if no other was sent.",
    },
    "NumberOpinion": OPINION
    | {
        "influence": "By how much this modality raises the value, in its unit; negative: it lowers it.",
        "value": "The value of this modality by itself.",
        "deviation": DEVIATION,
    },
    "LabelDecision": {
        "threshold": "The probability from which it is answered.",
        "answered": "Whether it is answered.",
    },
    "LabelProbability": {},
    "PredictionSet": {"labels": "The labels, the most probable first."},
    "Interval": {
        "low": "The lower end, in the unit of the value; null where the rows are too few to know one.",
        "high": "The upper end, likewise.",
    },
    "ModelDescription": {
        "name": "Its name.",
        "sha256": "The hash of its manifest, which has the hash of every file: it changes with the model.",
        "created": "When it was exported, or fitted again.",
        "trained": "When its graphs were trained and exported: not changed by a later fit.",
        "fitted_with": "The version of mla_serve that fitted it again after training; null if none did.",
        "task": "What is predicted: classes, labels or number. The field of that name describes it.",
        "modalities": "Its inputs, and how each is sent.",
        "fusion": "How the answers of several inputs become one.",
        "coverage": "The highest coverage that the validation rows allow: {fusion rule: {inputs: coverage}}.",
        "about": "What the one who trained it says about it.",
        "rows": "How many rows of each split it was made from.",
        "metrics": "How good it was on rows that it had not seen, as measured at export.",
        "golden_samples": "How many samples it is checked with at start; GET /samples has them.",
        "golden_source": "Where these samples come from.",
        "versions": "Versions of packages.",
        "providers": "What its graphs run on, in the names of onnxruntime.",
        "limits": "What one request may send, and how long it may take.",
        "classes": "The classes; empty for another task.",
        "labels": "The labels and their thresholds; empty for another task.",
        "number": "The number that is predicted; null for another task.",
        "update_refused": "Why a newer model is not served; null where none is refused.",
    },
    "ModalityDescription": {
        "kind": "The kind of input.",
        "sent_as": "How it is sent: as a file, a text, numbers or cells.",
        "formats": "Formats of files that are read.",
        "shape": "The shape of what the model sees.",
        "input": "What decoding depends on, such as the size of a picture.",
        "columns": "Its columns, where it has some.",
    },
    "ColumnDescription": {
        "name": "Its name.",
        "type": "Its type: number, category, date or yes_no.",
        "values": "Of a category, its most frequent values in training, at most 100.",
        "value_count": "How many values it had.",
        "low": "The lowest number or the first date in training.",
        "middle": "The median of a number.",
        "high": "The highest number or the last date.",
    },
}
"""What the fields of a reply mean, by the name of its schema; SHARED holds what several have in common."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What stands in a batch's results in the place of a sample that cannot be used."""

    problem: Problem


def target_fields(task: Task) -> dict[str, Any]:
    """Return the fields of GET /model about what is predicted."""
    return {"task": task.name, **TASK_REPLIES[type(task)].target(task)}


def purpose(bundle: Bundle) -> str:
    """Say in a sentence what the model does."""
    return f"{TASK_REPLIES[type(bundle.task)].purpose(bundle.task)} by any of {', '.join(bundle.inputs)}."


def coverage_option(task: Task) -> str:
    """Describe the option `coverage`, with the condition under which it holds."""
    return f"{TASK_REPLIES[type(task)].coverage}, such as 0.9; null when left out. {CONDITION}"


def promise(task: Task) -> str:
    """Name what a coverage adds to an answer."""
    return TASK_REPLIES[type(task)].promise


def answer_type(task: Task) -> type:
    """Return the class of the reply of /predict."""
    return PREDICTIONS[task.name]


def batch_type(task: Task) -> type:
    """Return the class of the reply of /predict/batch: one result per sample, in their order."""
    results: Any = list[answer_type(task) | Refusal]  # type: ignore[misc] # the task is known only now
    made = dataclasses.make_dataclass("BatchAnswer", [("results", results), ("model", ModelId)], frozen=True)
    made.__doc__ = "The reply of /predict/batch: one result per sample, in their order."
    return made


def complete_document(document: dict[str, Any], task: Task) -> None:
    """Add to the OpenAPI document what the classes of the replies do not say: meanings, what is always there."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in FIELDS.keys() & schemas.keys():
        properties = schemas[name]["properties"]
        for field, schema in properties.items():
            schema["description"] = {**SHARED, **FIELDS[name]}[field]
        schemas[name]["required"] = list(properties)
    answer = schemas[answer_type(task).__name__]["properties"]
    answer["model"] = {"$ref": "#/components/schemas/ModelId", "description": SHARED["model"]}
