"""A small data set in memory, and strategies over small encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from mla_serve.inputs import VectorInput
from mla_serve.tasks import Classes, Labels, Number, Task
from mla_serve.train.data.samples import Column, Samples
from mla_serve.train.recipe import Recipe
from mla_serve.train.strategies import Options, Strategy

CLASSES, SIZE, WIDTH = 3, 6, 8
TASK_OF: dict[str, Task] = {
    "classes": Classes(tuple(map(str, range(CLASSES)))),
    "labels": Labels(tuple(map(str, range(CLASSES)))),
    "number": Number(),
}


class FixedBatch:
    """A batch that hands out fixed windows."""

    def __init__(self, samples: Samples, rows: torch.Tensor) -> None:
        self.samples, self.rows = samples, rows
        self.targets = samples.targets[rows]
        self.present: Mapping[str, torch.Tensor] = {n: c.present[rows] for n, c in samples.columns.items()}
        self.present_everywhere = self.present

    def inputs(self, name: str) -> torch.Tensor:
        column = self.samples.columns[name]
        return column.windows[column.start[self.rows[column.present[self.rows]]]]


def targets_of(task: str, labels: torch.Tensor) -> torch.Tensor:
    """Return targets that the class tells: the class; all labels but the class's, the last one not known in one row; a number."""
    if task == "labels":
        targets = 1 - torch.eye(CLASSES)[labels]
        targets[0, -1] = torch.nan
        return targets
    return labels.float() - 1 if task == "number" else labels


@pytest.fixture
def make_samples() -> Callable[..., Samples]:
    """Vectors that tell the class, with some rows lacking some modalities; its targets are those of any task."""

    def make(
        names: tuple[str, ...] = ("a", "b"),
        rows: int = 24,
        missing: float = 0.0,
        seed: int = 0,
        task: str = "classes",
    ) -> Samples:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(rows) % CLASSES
        columns = {}
        for position, name in enumerate(names):
            count = (torch.rand(rows, generator=generator) >= missing).long()
            count[position :: len(names)] = 1
            noise = torch.randn(rows, SIZE, generator=generator)
            windows = torch.eye(SIZE)[labels + position] * 2 + 0.3 * noise
            kept = windows[count > 0]
            columns[name] = Column(VectorInput(SIZE), kept, count.cumsum(0) - count, count, [None] * rows)
        return Samples(targets_of(task, labels), columns)

    return make


@pytest.fixture
def make_strategy() -> Callable[..., Strategy]:
    """A strategy over vector encoders, ready to step."""

    def make(
        strategy: str = "mla",
        names: tuple[str, ...] = ("a", "b"),
        seed: int = 0,
        task: str = "classes",
        **options: object,
    ) -> Strategy:
        inputs = {name: VectorInput(SIZE) for name in names}
        encoders = dict.fromkeys(names, "small")
        built = Recipe(TASK_OF[task], inputs, encoders, WIDTH, strategy, Options(**options)).build(seed)  # type: ignore[arg-type]
        built.prepare(100, 100)
        built.train()
        return built

    return make


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """A small data set folder of vectors and words."""

    def write(rows: int = 60, folder: str = "table", seed: int = 0) -> Path:
        import json

        generator = np.random.default_rng(seed)
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        words = ("rot", "gruen", "blau")
        for split, count in (("train", rows), ("val", rows // 2), ("test", rows // 2)):
            lines = []
            for number in range(count):
                c = number % CLASSES
                numbers = (np.eye(4)[c] * 2 + 0.4 * generator.standard_normal(4)).round(3).tolist()
                row = {"label": words[c], "numbers": numbers, "text": f"{words[c]} {number % 5}"}
                if number % 7 == 3:
                    del row["numbers" if number % 2 else "text"]
                lines.append(json.dumps(row))
            (target / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        (target / "dataset.json").write_text('{"modalities": {"numbers": "vector"}}')
        return target

    return write


@pytest.fixture
def fixed_batch() -> type[FixedBatch]:
    """A batch of some rows of samples, which are not varied."""
    return FixedBatch
