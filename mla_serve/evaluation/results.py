"""The result of an evaluation: scores under every condition, drawn in a terminal and in a notebook."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mla_serve.bundle.html import FRAME, bar_cell, table
from mla_serve.fusion.rules import DEFAULT_RULE

if TYPE_CHECKING:
    from rich.console import RenderableType

Conditions = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
    """What was measured on labelled rows.

    rows: their number; classes: the labels in the order of `confusion`; draws: random masks that a missing rate is averaged over.
    conditions: {condition: {fusion rule: {score: value}}}, as fractions. "full" is each row as it is, "missing50" with half
    of the modalities left out, "image+text" with these two alone.
    confusion: how often the rows of each label got each answer, [label][answer]. more: what `mla-serve evaluate --json`
    prints beside this, such as "intervals" and "leave_one_out".
    """

    rows: int
    classes: tuple[str, ...]
    draws: int
    conditions: Conditions
    confusion: list[list[int]]
    more: Mapping[str, Any]

    @property
    def scores(self) -> Mapping[str, float]:
        """The scores of each row as it is, by the default fusion rule."""
        return self.conditions["full"][DEFAULT_RULE]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.scores["accuracy"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        """Write the number of rows and the main scores in one line."""
        scores = self.scores
        return (
            f"<{type(self).__name__} {self.rows} rows: accuracy {scores['accuracy']:.3f}, macro F1 "
            f"{scores['macro_f1']:.3f}, NLL {scores['nll']:.3f}, ECE {scores['ece']:.3f}>"
        )

    def __rich__(self) -> RenderableType:
        """Draw the conditions, for `rich.print`."""
        from mla_serve.evaluation.draw import measured

        return measured(
            {"split": "the table", "rows": self.rows, "draws": self.draws, "conditions": self.conditions},
            (DEFAULT_RULE,),
        )

    def _repr_html_(self) -> str:
        """Draw the conditions, for a notebook."""
        rows = [
            [
                html.escape(name),
                f"{rules[DEFAULT_RULE]['accuracy']:.3f}",
                bar_cell(rules[DEFAULT_RULE]["accuracy"]),
                *(f"{rules[DEFAULT_RULE][score]:.3f}" for score in ("macro_f1", "nll", "ece")),
            ]
            for name, rules in self.conditions.items()
        ]
        drawn = table(("available", "accuracy", "", "macro F1", "NLL", "ECE"), rows)
        return FRAME.format(f"<div><b>{self.rows:,} rows</b></div>{drawn}")
