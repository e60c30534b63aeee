"""Say what will be trained, and how each epoch went, in lines for the command and for `mla_serve.fit`."""

from __future__ import annotations

from typing import Any

from mla_serve.tasks import Task
from mla_serve.train.plan import Plan


def plan_lines(planned: Plan) -> list[str]:
    """Return what is to be known before training: notes on the data, and what is trained."""
    return [*planned.replaced, *planned.notes, headline(planned)]


def headline(planned: Plan) -> str:
    """Say which modalities of which model are trained to predict what."""
    recipe = planned.recipe
    return f"{planned.name}: {', '.join(recipe.inputs)} -> {recipe.task.describe()}, {recipe.strategy}"


def epoch_line(record: dict[str, Any], task: Task) -> str:
    """Format one epoch: loss and main score on validation of each modality alone, and that score of all together."""
    parts = []
    for key, loss in record.items():
        if key.startswith("loss/"):
            name = key.removeprefix("loss/")
            score = f"{record['val'][name]:.3f}" if name in record["val"] else "-"  # no validation row has it
            parts.append(f"{name} {loss:.2f} {score}")
    together = f"all {record['val']['full']:.3f} {task.title(task.main_scores[0])}"
    return f"epoch {record['epoch']:3d}  {'  '.join(parts)}  {together}{'  *' if record['best'] else ''}"
