"""Draw the results of an evaluation as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mla_serve.bundle.drawing import bar

BAR = 14  # characters


def worst_groups(groups: Mapping[str, Any]) -> list[str]:
    """Return a line for each modality with groups: the one with the lowest accuracy. Args: groups, of analysis.by_group."""
    return [
        f"worst of {len(found['rows'])} groups of {name}: {found['worst']}, accuracy {found['accuracy'][found['worst']]:.3f} "
        f"over {found['rows'][found['worst']]} rows"
        for name, found in groups.items()
        if "worst" in found
    ]


def measured(results: Mapping[str, Any], rules: Sequence[str]) -> RenderableType:
    """Draw what was measured on a table: one line per condition and fusion rule, narrow enough for any screen.

    Args: results, {"split", "rows", "draws", "conditions": {condition: {rule: {score: value}}}}.
    """
    averaged = f", missing rates over {results['draws']} draws" if results["draws"] else ""
    table = Table(
        title=f"{results['rows']} rows of {results['split']}{averaged}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for title in ("available", "fusion", "accuracy", "", "NLL", "ECE"):
        table.add_column(title, justify="right" if title in ("accuracy", "NLL", "ECE") else "left", no_wrap=True)
    for name, scores in results["conditions"].items():
        for rule in rules:
            s = scores[rule]
            drawn = Text(bar(s["accuracy"], BAR), "green")
            shown = Text(name if rule == rules[0] else "")
            table.add_row(shown, rule, f"{s['accuracy']:.3f}", drawn, f"{s['nll']:.3f}", f"{s['ece']:.3f}")
        if len(rules) > 1:
            table.add_section()
    return table
