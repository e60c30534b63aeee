"""Results drawn for the terminal: the length of bars, labels without markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mla_serve.bundle.results import LabelProbability, Opinion, Prediction, bar
from mla_serve.evaluation.draw import measured
from mla_serve.tasks import Classes


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, ""), (1, "████"), (0.5, "██"), (1 / 32, "▏"), (15 / 32, "█▉"), (-1, ""), (2, "████")]
)
def test_a_bar_is_as_long_as_the_share(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


def drawn(thing: object) -> str:
    output = io.StringIO()
    Console(file=output, width=100).print(thing)
    return output.getvalue()


def test_labels_are_not_read_as_markup() -> None:
    opinion = Opinion(1.0, 0.1, 0.2, "[red]x[/]", 0.9, 0.25)
    listed = [LabelProbability("[red]x[/]", 0.9), LabelProbability("y", 0.1)]
    answer = Prediction("[red]x[/]", 0.9, listed, 0.2, "paper", {"a": opinion}, [], ["[b]", "y"])
    shown = drawn(answer)
    assert shown.count("[red]x[/]") == 3
    assert "prediction set: [b], y" in shown
    assert "25%" in shown


def test_measured_scores_are_drawn_for_every_condition_and_rule() -> None:
    scores = {"accuracy": 0.5, "nll": 1.25, "ece": 0.125}
    results = {"rows": 7, "split": "test", "draws": 20, "conditions": {"full": {"paper": scores, "calibrated": scores}}}
    shown = drawn(measured(results, ("calibrated", "paper"), Classes(("x", "y"))))
    assert "7 rows of test, missing rates over 20 draws" in shown
    assert [line.split()[-5::2] for line in shown.splitlines() if "█" in line] == [
        ["calibrated", "█" * 7, "0.125"],
        ["paper", "█" * 7, "0.125"],
    ]
