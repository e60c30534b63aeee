"""Draw results for people, with rich: the same bars in the terminal, from the client and in a notebook."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mla_serve.results import Prediction

BAR = 24
SHOWN_CLASSES = 5


def bar(share: float, width: int = BAR) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def prediction(answer: Prediction) -> RenderableType:
    """Draw the answer, what each modality said and how much it counted, and the likeliest classes."""
    headline = Text.assemble(
        (answer.label, "bold green"), f"  {answer.probability:.1%}", (f"   entropy {answer.entropy:.3f} nats", "dim")
    )
    opinions = _grid("listened to", "weight", "", "alone it says", "with", "influence")
    for name, opinion in answer.modalities.items():
        opinions.add_row(
            Text(name),
            f"{opinion.weight:.2f}",
            Text(bar(opinion.weight), "cyan"),
            Text(opinion.label),
            f"{opinion.probability:.1%}",
            f"{opinion.influence:+.3f}",
        )
    classes = _grid("class", "probability", "")
    for label, probability in list(answer.probabilities.items())[:SHOWN_CLASSES]:
        classes.add_row(Text(label), f"{probability:.1%}", Text(bar(probability), "green"))
    missing = [Text(f"missing: {', '.join(answer.missing)}", "dim")] if answer.missing else []
    return Group(headline, Text(), opinions, *missing, Text(), classes)


def _grid(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in ("weight", "with", "probability", "influence") else "left")
    return table
