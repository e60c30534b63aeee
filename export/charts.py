"""The charts of the report: what is drawn, and in a sentence for screen readers what it says."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mla_serve import palette
from mla_serve.export.combinations import chips, score_axis
from mla_serve.export.plot import Axis, Line, axis_from_zero, plot, share_axis
from mla_serve.export.wording import SHARES, joined, score_text
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.tasks import Task
from mla_serve.tasks.base import LOWER_IS_BETTER

SMALL = 120  # pixels, the height of a plot among others
MIN_ANSWERS = 10  # in a dot of the reliability diagram
LARGEST_DOT = 11  # pixels
SAME = (
    0.005  # of a share, or of the range of another score: rules whose lines are this close everywhere are drawn as one
)
STYLES = ("accent", "quiet", "quiet dashed", "quiet dotted")
Scores = Mapping[str, Any]


def missing_curves(curves: Scores, score: str, task: Task) -> str:
    """Draw a score against the share of modalities that is missing: a line for each group of rules that are nearly equal."""
    values = [scores[score] for by_rate in curves.values() for scores in by_rate.values()]
    y = score_axis(task, score, values)
    lines = []
    for number, rules in enumerate(same_curves(curves, score)):
        points = [(int(rate), scores[score]) for rate, scores in curves[rules[0]].items()]
        lines.append(Line(points, STYLES[min(number, 3)], _shortened(rules) if len(curves) > 1 else ""))
    rates = [int(rate) for rate in next(iter(curves.values()))]
    x = Axis(
        "inputs missing",
        0,
        rates[-1],
        [(rate, f"{rate} %") for rate in (0, *(rate for rate in rates if rate and rate % 20 == 0))],
    )
    first, last = lines[0].points[0][1], lines[0].points[-1][1]
    message = f"From {score_text(task, score, first)} with {rates[0]} % missing to {score_text(task, score, last)} with {rates[-1]} %."
    return plot(f"{task.title(score)} by the share of inputs that is missing", message, x, y, lines)


def same_curves(curves: Scores, score: str) -> list[list[str]]:
    """Group the rules whose curves are nearly equal to that of the group's first rule."""
    values = {rule: [scores[score] for scores in by_rate.values()] for rule, by_rate in curves.items()}
    largest = max(abs(value) for curve in values.values() for value in curve)
    near = SAME if score in SHARES else SAME * (largest or 1)
    groups: list[list[str]] = []
    for rule, curve in values.items():
        for group in groups:
            if max(abs(a - b) for a, b in zip(curve, values[group[0]], strict=True)) <= near:
                group.append(rule)
                break
        else:
            groups.append([rule])
    return groups


def _shortened(rules: Sequence[str]) -> str:
    return rules[0] if len(rules) == 1 else f"{rules[0]} + {len(rules) - 1}"


def reliability(before: Sequence[Scores], after: Sequence[Scores], said: str, true: str) -> str:
    """Draw how often what is said is right. The area of a dot shows how many answers it stands for.

    Args: before, by the paper's rule; after, calibrated; said, true: the names of the axes.
    """
    lines = [
        Line([(0, 0), (1, 1)], "grid"),
        *(_bins(one, style) for one, style in ((before, "quiet dashed"), (after, "accent"))),
    ]
    kept = [one for one in after if one["rows"] >= MIN_ANSWERS]
    off = sum(abs(one["accuracy"] - one["confidence"]) * one["rows"] for one in kept) / (
        sum(o["rows"] for o in kept) or 1
    )
    message = f"On average the two are {100 * off:.1f} points apart; on the diagonal they would be equal."
    return plot(f"{true} by {said}", message, share_axis(said), share_axis(true), lines, height=240)


def _bins(bins: Sequence[Scores], style: str) -> Line:
    total = sum(one["rows"] for one in bins) or 1
    kept = [one for one in bins if one["rows"] >= MIN_ANSWERS]
    radii = [max(2.5, LARGEST_DOT * math.sqrt(one["rows"] / total)) for one in kept]
    return Line([(one["confidence"], one["accuracy"]) for one in kept], style, "", radii)


def deviations(before: Sequence[Scores], after: Sequence[Scores]) -> str:
    """Draw the error against the predicted deviation, both root mean squares, a dot for each fifth of the answers."""
    both = [one[key] for bins in (before, after) for one in bins for key in ("deviation", "rmse")]
    x, y = axis_from_zero("deviation that was said", both), axis_from_zero("error", both)
    lines = [Line([(0, 0), (x.high, y.high)], "grid")]
    for bins, style in ((before, "quiet dashed"), (after, "accent")):
        lines.append(Line([(b["deviation"], b["rmse"]) for b in bins], style, "", [4.0] * len(bins)))
    last = after[-1]
    message = f"Where the largest deviations are said, {last['deviation']:.2f}, the error is {last['rmse']:.2f}."
    return plot("error by deviation that was said", message, x, y, lines, height=240)


def scatter(points: Sequence[Scores], task: Task) -> str:
    """Draw predicted against true values, with a line for the central part of each answer."""
    fields = task.to_dict()
    unit = f", {fields['unit']}" if fields["unit"] else ""
    values = [point[key] for point in points for key in ("value", "true")]
    x, y = (_value_axis(f"{which} value{unit}", values, log=fields["log"]) for which in ("true", "answered"))
    height = 320
    spreads = "".join(
        f'<line class="reach" x1="{at:.1f}%" x2="{at:.1f}%" y1="{height * (1 - y.place(p["low"])):.1f}" y2="{height * (1 - y.place(p["high"])):.1f}"/>'
        for p in points
        for at in [100 * x.place(p["true"])]
    )
    dots = Line([(p["true"], p["value"]) for p in points], "accent none", "", [2.5] * len(points))
    inside = sum(p["low"] <= p["true"] <= p["high"] for p in points)
    message = f"The lines of {inside} of {len(points)} rows hold the true value."
    return plot(
        "answered by true values",
        message,
        x,
        y,
        [Line([(x.low, x.low), (x.high, x.high)], "grid"), dots],
        height=height,
        more=spreads,
    )


def _value_axis(name: str, values: Sequence[float], *, log: bool) -> Axis:
    if not log:
        return axis_from_zero(name, values)
    low, high = min(values) / 1.1, max(values) * 1.1
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(tens) > 4 else (1, 2, 5)
    marks = [step * 10.0**ten for ten in tens for step in steps if low <= step * 10.0**ten <= high]
    return Axis(name, low, high, [(mark, f"{mark:,g}") for mark in marks], log=True)


def learning_curves(epochs: Sequence[Scores], names: Sequence[str], task: Task) -> str:
    """Draw the main score on validation of each modality alone and of all together, a plot for each modality."""
    main, last = task.main_scores[0], epochs[-1]["epoch"]
    values = [record["val"][name] for record in epochs for name in ("full", *names) if name in record["val"]]
    y = score_axis(task, main, values)
    x = Axis("epoch", min(1, last), last, [(epoch, str(epoch)) for epoch in dict.fromkeys((1, last))])
    plots = []
    for index, name in enumerate(names):
        lines = [
            Line([(r["epoch"], r["val"][key]) for r in epochs if key in r["val"]], style)
            for key, style in (("full", "quiet dashed"), (name, palette.hue_class(index)))
        ]
        if not lines[1].points:
            continue
        message = f"At the end {score_text(task, main, lines[1].points[-1][1])}; all together {score_text(task, main, lines[0].points[-1][1])}."
        drawing = plot(f"{task.title(main)} of {name} alone by epoch", message, x, y, lines, height=SMALL)
        plots.append(_panel(chips([name], names), drawing))
    return _panels([("quiet dashed", "all together"), ("", "in its colour: the input alone")], plots)


def corruption_curves(curves: Scores, without: Scores, names: Sequence[str], score: str, task: Task) -> str:
    """Draw a score against severity, a plot for each corruption of a modality: alone, together, together without it."""
    values = [
        s[rule][score]
        for kinds in curves.values()
        for by in kinds.values()
        for s in by.values()
        for rule in ("alone", DEFAULT_RULE)
    ]
    y = score_axis(task, score, values)
    panels = [
        (_at_worst(by, score), name, _panel(f"{chips([name], names)} {kind.replace('_', ' ')}", drawing))
        for name, kinds in curves.items()
        for kind, by in kinds.items()
        for drawing in [
            _corruption(name, kind, by, without.get(name), palette.hue_class(names.index(name)), y, score, task)
        ]
    ]
    sign = -1 if score in LOWER_IS_BETTER else 1
    panels.sort(key=lambda panel: (names.index(panel[1]), sign * panel[0]))
    first = {name: drawing for _, name, drawing in reversed(panels)}
    others = [drawing for _, name, drawing in panels if drawing != first[name]]
    legend = [("accent", "all together"), ("ink dashed", "all others, without it")]
    shown = _panels(
        [*legend, *((palette.hue_class(names.index(name)), f"{name} alone") for name in reversed(first))],
        [*first.values()][::-1],
    )
    return (
        f"{shown}<details><summary>{len(others)} other ways to spoil an input</summary>{_panels([], others)}</details>"
        if others
        else shown
    )


def _at_worst(by_severity: Scores, score: str) -> float:
    """Return the score of all together at the largest severity."""
    return float([*by_severity.values()][-1][DEFAULT_RULE][score])


def _corruption(
    name: str, kind: str, by_severity: Scores, without: Scores | None, hue: str, y: Axis, score: str, task: Task
) -> str:
    severities = [int(severity) for severity in by_severity]
    lines = [
        Line([(int(severity), s[rule][score]) for severity, s in by_severity.items()], style)
        for rule, style in (("alone", hue), (DEFAULT_RULE, "accent"))
    ]
    ends = [("alone", lines[0].points[-1][1]), ("all together", lines[1].points[-1][1])]
    if without:
        level = without[DEFAULT_RULE][score]
        lines.insert(0, Line([(0, level), (severities[-1], level)], "ink dashed"))
        ends.append(("without it", level))
    message = f"At the worst: {joined([f'{who} {score_text(task, score, value)}' for who, value in ends])}."
    x = Axis("how spoiled", 0, severities[-1], [(severity, str(severity)) for severity in severities])
    return plot(
        f"{task.title(score)} with {name} spoiled by {kind.replace('_', ' ')}", message, x, y, lines, height=SMALL
    )


def _panel(title: str, drawing: str) -> str:
    """Args: title, HTML."""
    return f"<div><h3>{title}</h3>{drawing}</div>"


def _panels(legend: Sequence[tuple[str, str]], plots: Sequence[str]) -> str:
    return f'{legend_of(legend) if legend else ""}<div class="panels">{"".join(plots)}</div>'


def legend_of(entries: Sequence[tuple[str, str]]) -> str:
    """Return what each line is. Args: (CSS classes, text)."""
    items = "".join(f"<li>{_swatch(style)}{html.escape(text)}</li>" for style, text in entries)
    return f'<ul class="legend">{items}</ul>'


def _swatch(style: str) -> str:
    if not style:
        return ""
    return f'<svg aria-hidden="true" width="24" height="10"><line class="line {style}" x1="0" x2="24" y1="5" y2="5"/></svg>'
