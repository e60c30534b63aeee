"""The result of an evaluation: scores under every condition, drawn in a terminal and in a notebook."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mla_serve.bundle.html import FRAME, bar_cell, table
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Task

if TYPE_CHECKING:
    from rich.console import RenderableType

Conditions = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
    """What was measured on labelled rows.

    rows: their number; task: what is predicted; draws: random masks that a missing rate is averaged over.
    conditions: {condition: {fusion rule: {score: value}}}. "full" is each row as it is, "missing50" with half of the
    modalities left out, "image+text" with these two alone. Which scores there are depends on the task, see docs/explanation/tasks.md.
    more: what `mla-serve evaluate --json` prints beside this, such as "intervals" and "leave_one_out".
    """

    rows: int
    task: Task
    draws: int
    conditions: Conditions
    more: Mapping[str, Any]

    @property
    def scores(self) -> Mapping[str, float]:
        """The scores of each row as it is, by the default fusion rule."""
        return self.conditions["full"][DEFAULT_RULE]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes or labels; none for a number."""
        return self.task.names

    @property
    def accuracy(self) -> float:
        """The share of right answers. Raises: AttributeError for labels and numbers, which have other scores."""
        return float(self._only_classes("accuracy", self.scores))

    @property
    def confusion(self) -> list[list[int]]:
        """How often the rows of each class got each answer: [class][answer]. Raises: AttributeError as `accuracy`."""
        rows: list[list[int]] = self._only_classes("confusion", self.more)["rows"]
        return rows

    def _only_classes(self, name: str, where: Mapping[str, Any]) -> Any:
        if name not in where:
            raise AttributeError(f"{self.task.describe()}: there is no {name}; .scores has {', '.join(self.scores)}")
        return where[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"task": self.task.to_dict()}

    def __repr__(self) -> str:
        """Write the number of rows and the main scores in one line."""
        names = dict.fromkeys((*self.task.main_scores, *self.task.columns(self.conditions)))
        shown = ", ".join(f"{self.task.title(name)} {self.task.cell(name, self.scores)}" for name in names)
        return f"<{type(self).__name__} {self.rows} rows: {shown}>"

    def __rich__(self) -> RenderableType:
        """Draw the conditions, for `rich.print`."""
        from mla_serve.evaluation.draw import measured

        results = {"split": "the table", "rows": self.rows, "draws": self.draws, "conditions": self.conditions}
        return measured(results, (DEFAULT_RULE,), self.task)

    def _repr_html_(self) -> str:
        """Draw the conditions, for a notebook."""
        task = self.task
        first, *others = dict.fromkeys((*task.main_scores, *task.columns(self.conditions)))
        rows = [
            [
                html.escape(name),
                task.shown(first, rules[DEFAULT_RULE][first]),
                bar_cell(rules[DEFAULT_RULE][first]),
                *(task.cell(score, rules[DEFAULT_RULE]) for score in others),
            ]
            for name, rules in self.conditions.items()
        ]
        titles = (task.title(first), "", *(task.title(score) for score in others))
        drawn = table(("available", *titles), rows)
        return FRAME.format(f"<div><b>{self.rows:,} rows</b></div>{drawn}")
