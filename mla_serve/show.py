"""Draw results for people, with rich: the same bars in the terminal, from the client and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mla_serve.results import Prediction

BAR = 24
SHOWN_CLASSES = 5
MEASURED_BAR = 10
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
    for label, probability in list(answer.probabilities.items())[:SHOWN_CLASSES]:
        classes.add_row(Text(label), f"{probability:.1%}", Text(bar(probability), "green"))
    notes = [Text(f"missing: {', '.join(answer.missing)}", "dim")] if answer.missing else []
    if answer.prediction_set is not None:
        notes.append(Text(f"prediction set: {', '.join(answer.prediction_set)}"))
    return Group(headline, Text(), opinions, *notes, Text(), classes)


def measured(results: Mapping[str, Any], rules: Sequence[str]) -> RenderableType:
    """Draw what was measured on a table: a bar for the accuracy of the first rule, then accuracy, NLL and ECE of each.

    Args: results, {"split", "rows", "conditions": {condition: {rule: {score: value}}}}.
    """
    table = Table(
        title=f"{results['rows']} rows of {results['split']}: accuracy, NLL (nats), ECE", title_justify="left"
    )
    table.add_column("available")
    table.add_column("accuracy")  # the one column that gives way on a narrow screen
    for rule in rules:
        table.add_column(rule, justify="right", no_wrap=True)
    for name, scores in results["conditions"].items():
        cells = [f"{s['accuracy']:.3f}  {s['nll']:.3f}  {s['ece']:.3f}" for s in (scores[rule] for rule in rules)]
        drawn = Text(bar(scores[rules[0]]["accuracy"], MEASURED_BAR), "green", no_wrap=True, overflow="crop")
        table.add_row(Text(name, no_wrap=True), drawn, *cells)
    return table


def _grid(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in NUMBERS else "left")
    return table
