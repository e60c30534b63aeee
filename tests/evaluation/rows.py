"""Labelled rows of generated values for a bundle of any task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import SplitRun, run_rows
from mla_serve.fusion.rules import fuse
from mla_serve.table import Row
from mla_serve.table.faults import Faults
from mla_serve.tasks import Task
from mla_serve.tasks.base import Array

SPEAKERS = 8


def label_rows(task: Task, answer: Array, generator: np.random.Generator) -> Any:
    """Draw the label of a row from the distribution that was answered: that of a calibrated model."""
    draws: dict[str, Callable[[], Any]] = {
        "classes": lambda: task.names[generator.choice(len(task.names), p=task.plain(answer))],
        "labels": lambda: frozenset(
            name for name, p in zip(task.names, task.plain(answer), strict=True) if generator.random() < p
        ),
        "number": lambda: float(task.restore(generator.normal(answer[0], np.sqrt(answer[1])))),  # type: ignore[attr-defined]
    }
    return draws[task.name]()


def run_generated_rows(predictor: Predictor, rows: int = 40, missing: float = 0.3) -> SplitRun:
    """Run rows of generated values, some of them without some modalities, each of one of SPEAKERS speakers."""
    generator, task = np.random.default_rng(0), predictor.task
    values = []
    for number in range(rows):
        kept = [name for name in predictor.names if generator.random() >= missing]
        kept = kept or [predictor.names[number % len(predictor.names)]]
        values.append({name: predictor.bundle.inputs[name].generate(generator) for name in kept})
    outputs = predictor.run_graphs([predictor.decode(value) for value in values])
    answers = fuse(outputs.opinions, outputs.present, predictor.bundle.fusion).answers
    made = [
        Row(
            str(number),
            label_rows(task, answer, generator),
            value,
            {},
            {"audio": f"speaker {number % SPEAKERS}"},
            ("rows.jsonl", number + 1),
        )
        for number, (value, answer) in enumerate(zip(values, answers, strict=True))
    ]
    return run_rows(predictor, made, "test", "0" * 64, Faults())
