"""Results drawn for the terminal: the length of bars, labels without markup."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from mla_serve.bundle.drawing import bar, format_number
from mla_serve.bundle.results import (
    ClassOpinion,
    ClassPrediction,
    Interval,
    LabelDecision,
    LabelProbability,
    LabelsOpinion,
    LabelsPrediction,
    NumberOpinion,
    NumberPrediction,
    PredictionSet,
)
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
    opinion = ClassOpinion(1.0, 0.1, 0.2, "[red]x[/]", 0.9, 0.25)
    listed = [LabelProbability("[red]x[/]", 0.9), LabelProbability("y", 0.1)]
    chosen = PredictionSet(["[b]", "y"], 0.9, 212, pooled=True)
    answer = ClassPrediction("[red]x[/]", 0.9, listed, 0.2, "paper", {"a": opinion}, [], chosen)
    shown = drawn(answer)
    assert shown.count("[red]x[/]") == 3
    assert "prediction set: [b], y (90%, from rows with other modalities too)" in shown
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


def number(interval: Interval | None = None) -> NumberPrediction:
    """A number to which one modality says 300 and another 350."""
    opinions = {"a": NumberOpinion(0.75, -10.0, 0.2, 300.0, 20.0), "b": NumberOpinion(0.25, 40.0, 0.3, 350.0, 50.0)}
    return NumberPrediction(312.0, "EUR", 18.0, 0.1, "paper", opinions, ["c"], interval)


def test_a_number_is_drawn_on_an_axis_with_what_each_modality_says() -> None:
    shown = drawn(number(Interval(280.0, 345.0, 0.9, 212, pooled=True)))
    assert shown.startswith("312 EUR  ± 18   entropy 0.100 nats")
    assert "interval: 280 to 345 EUR (90%, from rows with other modalities too)" in shown
    lines = {line.split()[0]: line for line in shown.splitlines() if "●" in line}
    assert lines.keys() == {"answer", "a", "b"}
    for line in lines.values():
        assert line.index("├") < line.index("●") < line.index("┤")
    assert lines["a"].index("●") < lines["answer"].index("●") < lines["b"].index("●")
    page = number()._repr_html_()
    assert "312 EUR" in page
    assert page.count("left:") == 2 * 3


def test_an_interval_without_an_end_is_drawn_with_the_deviation() -> None:
    shown = drawn(number(Interval(None, 345.0, 0.9, 3, pooled=False)))
    assert "interval: ? to 345 EUR (90%)" in shown
    assert "●" in shown


def test_labels_are_drawn_with_their_thresholds() -> None:
    listed = [LabelDecision("drama", 0.7, 0.5, answered=True), LabelDecision("crime", 0.4, 0.45, answered=False)]
    opinions = {"a": LabelsOpinion(1.0, 0.1, 0.2, [LabelProbability("drama", 0.7)])}
    answer = LabelsPrediction(["drama"], listed, 0.2, "paper", opinions, [])
    shown = drawn(answer)
    assert shown.startswith("drama   entropy 0.200 nats")
    assert [line.split() for line in shown.splitlines() if "45.0%" in line] == [
        ["crime", "40.0%", "█████████▋", "45.0%"]
    ]
    assert "✓" in next(line for line in shown.splitlines() if "50.0%" in line)
    assert "drama 70.0%" in shown
    assert drawn(dataclasses.replace(answer, labels=[])).startswith("no label")


@pytest.mark.parametrize(
    ("value", "deviation", "written"),
    [
        (312_345.6, 41_000.0, "312,346"),
        (3.14159, 0.05, "3.142"),
        (3.14159, 0.5, "3.14"),
        (3.14159, 9.99, "3.1"),
        (3.0, 10.0, "3"),
        (41.3, None, "41"),
        (0.0312, None, "0.031"),
        (5.0, 0.0, "5"),
        (3.14159e-9, 5e-11, "3.142e-09"),
        (3.14159e-9, None, "3.1e-09"),
        (1000.0, 5e-9, "1,000.0000000000"),
        (1.7e12, 1e7, "1,700,000,000,000"),
        (1e16, None, "1.000e+16"),
    ],
)
def test_a_number_is_written_to_two_digits_of_its_deviation(
    value: float, deviation: float | None, written: str
) -> None:
    assert format_number(value, deviation) == written
