"""Draw results for people, with rich: the same bars in the terminal, from the client and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mla_serve.results import Prediction

BAR = 24
SHOWN_CLASSES = 5
MEASURED_BAR = 14
NUMBERS = ("weight", "with", "probability", "influence", "unfamiliar")


def bar(share: float, width: int = BAR) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def prediction(answer: Prediction) -> RenderableType:
    """Draw the answer, what each modality said and how much it counted, and the likeliest classes."""
    headline = Text.assemble(
        (answer.label, "bold green"), f"  {answer.probability:.1%}", (f"   entropy {answer.entropy:.3f} nats", "dim")
    )
    known = any(opinion.unfamiliarity is not None for opinion in answer.modalities.values())
    last = ["unfamiliar"] if known else []
    opinions = _grid("listened to", "weight", "", "alone it says", "with", "influence", *last)
    for name, opinion in answer.modalities.items():
        strange = "" if opinion.unfamiliarity is None else f"{opinion.unfamiliarity:.0%}"
        opinions.add_row(
            Text(name),
            f"{opinion.weight:.2f}",
            Text(bar(opinion.weight), "cyan"),
            Text(opinion.label),
            f"{opinion.probability:.1%}",
            f"{opinion.influence:+.3f}",
            *([strange] if known else []),
        )
    classes = _grid("class", "probability", "")
    for each in answer.probabilities[:SHOWN_CLASSES]:
        classes.add_row(Text(each.label), f"{each.probability:.1%}", Text(bar(each.probability), "green"))
    notes = [Text(f"missing: {', '.join(answer.missing)}", "dim")] if answer.missing else []
    if answer.prediction_set is not None:
        notes.append(Text(f"prediction set: {', '.join(answer.prediction_set)}"))
    return Group(headline, Text(), opinions, *notes, Text(), classes)


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
            drawn = Text(bar(s["accuracy"], MEASURED_BAR), "green")
            shown = Text(name if rule == rules[0] else "")
            table.add_row(shown, rule, f"{s['accuracy']:.3f}", drawn, f"{s['nll']:.3f}", f"{s['ece']:.3f}")
        if len(rules) > 1:
            table.add_section()
    return table


def _grid(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in NUMBERS else "left")
    return table
