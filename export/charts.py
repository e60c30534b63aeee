"""The charts of the report as inline SVG. matplotlib draws them; the CSS of the page sets their colours, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mla_serve.tasks import Task
from mla_serve.tasks.base import shorten

INK, FAINT, ACCENT = "#010203", "#040506", "#070809"  # placeholders, replaced by COLOURS
COLOURS = {INK: "currentColor", FAINT: "var(--faint)", ACCENT: "var(--accent)"}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
LINE_STYLES: Mapping[str, Mapping[str, Any]] = {
    "calibrated": {"color": ACCENT, "linewidth": 2.4, "zorder": 4},
    "undiscounted": {"color": ACCENT, "linewidth": 1.4, "linestyle": (0, (4, 2)), "zorder": 3},
    "paper": {"color": INK, "linewidth": 1.3, "zorder": 2},
    "mean_logit": {"color": INK, "linewidth": 1.0, "linestyle": (0, (1, 1.6)), "zorder": 2},
    "alone": {"color": FAINT, "linewidth": 1.2, "zorder": 1},
}
Scores = Mapping[str, Any]
TICKS = (0, 0.25, 0.5, 0.75, 1)
PANELS = 4  # beside each other
MIN_ANSWERS = 10  # in a dot of the reliability diagram
PERCENTAGES = ("accuracy",)  # scores that are written as a percentage
MARKS = ("Before: the paper’s rule", "After: calibrated")


def score_text(score: str, value: float) -> str:
    """Write the value of a main score."""
    return f"{value:.1%}" if score in PERCENTAGES else shorten(value, ".3f")


def _score_axis(axis: Any, score: str) -> None:
    """Label the ticks of an axis of a main score."""
    axis.set_major_formatter("{x:.0%}" if score in PERCENTAGES else "{x:.2f}")


def _lowest(values: Iterable[float]) -> float:
    """Return where the axis of a main score begins: at 0, or at -1 or above where one is negative."""
    return max(-1.0, min(0.0, *values))


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an <svg> element with the colours of the page. Args: label, for screen readers."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.04
        )
    text = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: (bold |)([\d.]+px) [^;\"]*", r"font: \1\2 system-ui, sans-serif", text)
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    size = re.search(r'<svg[^>]*?width="([\d.]+)pt"', text)
    wide = f' style="max-width:{float(size[1]) * 4 / 3:.0f}px"' if size else ""
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{label}"{wide}', text, count=1).replace(
        ' height="' + (re.search(r'height="([\d.]+pt)"', text) or [""] * 2)[1] + '"', "", 1
    )


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def pattern_bars(conditions: Scores, intervals: Scores, task: Task) -> str:
    """Draw the main score of every availability pattern as bars with intervals, and that of the paper's rule as marks."""
    names = [name for name in conditions if not name.startswith("missing") and name != "full"][::-1]
    main = task.main_scores[0]
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 0.36 * len(names) + 0.7)
        axes: Axes = grid[0, 0]
        for at, name in enumerate(names):
            value = conditions[name]["calibrated"][main]
            low, high = intervals[name]["calibrated"][main]
            axes.barh(at, value, height=0.62, color=ACCENT, alpha=0.85)
            axes.plot([low, high], [at, at], color=INK, linewidth=1.2)
            paper = conditions[name]["paper"][main]
            axes.plot([paper, paper], [at - 0.31, at + 0.31], color=INK, linewidth=2)
        shown = [f"{name}   {score_text(main, conditions[name]['calibrated'][main])}" for name in names]
        axes.set_yticks(range(len(names)), shown)
        axes.set_xlim(_lowest(conditions[name][rule][main] for name in names for rule in ("calibrated", "paper")), 1)
        _score_axis(axes.xaxis, main)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        return svg(figure, "patterns", f"{task.title(main)} by availability pattern")


def missing_curves(curves: Scores, task: Task) -> str:
    """Draw the main score and the NLL against the missing rate, one line for each rule."""
    main = task.main_scores[0]
    title = task.title(main)
    titles = ((main, title[0].upper() + title[1:] if title.islower() else title), ("nll", "NLL, nats"))
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 3.2, 1, 2)
        for axes, (key, title) in zip(grid[0], titles, strict=True):
            for rule, by_rate in curves.items():
                rates = [int(rate) for rate in by_rate]
                axes.plot(
                    rates, [s[key] for s in by_rate.values()], label=rule, **LINE_STYLES.get(rule, {"color": FAINT})
                )
            axes.set_title(title)
            axes.set_xlabel("% of modalities missing")
        _score_axis(grid[0, 0].yaxis, main)
        grid[0, 0].legend(frameon=False, loc="lower left", handlelength=2.4)
        return svg(figure, "missing", f"{task.title(main)} and NLL against the missing rate")


def reliability(before: Sequence[Scores], after: Sequence[Scores], confidence: str, accuracy: str) -> str:
    """Draw how often what is said is right, by the paper's rule and calibrated. The area of a dot shows how many answers.

    Args: confidence and accuracy, the labels of the axes.
    """
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 3.7, 1, 2, sharey=True)
        for axes, bins, title, colour in zip(grid[0], (before, after), MARKS, (INK, ACCENT), strict=True):
            total = sum(one["rows"] for one in bins)
            bins = [one for one in bins if one["rows"] >= MIN_ANSWERS]
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
            sizes = [12 + 500 * b["rows"] / total for b in bins]
            _dots(axes, [b["confidence"] for b in bins], [b["accuracy"] for b in bins], sizes, colour)
            axes.set_title(title)
            axes.set_xlabel(confidence)
            axes.set(xlim=(0, 1.04), ylim=(0, 1.04), xticks=TICKS, yticks=TICKS)
            axes.xaxis.set_major_formatter("{x:.0%}")
            axes.yaxis.set_major_formatter("{x:.0%}")
        grid[0, 0].set_ylabel(accuracy)
        figure.set_layout_engine("constrained", wspace=0.08)
        return svg(figure, "reliability", "reliability before and after calibration")


def _dots(axes: Axes, x: Sequence[float], y: Sequence[float], sizes: Sequence[float] | float, colour: str) -> None:
    axes.plot(x, y, color=colour, linewidth=1.2)
    axes.scatter(x, y, s=sizes, color=colour, alpha=0.75, linewidth=0, clip_on=False)


def deviations(before: Sequence[Scores], after: Sequence[Scores]) -> str:
    """Draw the error against the predicted deviation, both root mean squares, a dot for each fifth of the answers."""
    limit = 1.05 * max(one[key] for bins in (before, after) for one in bins for key in ("deviation", "rmse"))
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 3.7, 1, 2, sharey=True)
        for axes, bins, title, colour in zip(grid[0], (before, after), MARKS, (INK, ACCENT), strict=True):
            axes.plot([0, limit], [0, limit], color=FAINT, linewidth=1)
            _dots(axes, [b["deviation"] for b in bins], [b["rmse"] for b in bins], 60, colour)
            axes.set_title(title)
            axes.set_xlabel("predicted deviation")
            axes.set(xlim=(0, limit), ylim=(0, limit))
        grid[0, 0].set_ylabel("error")
        figure.set_layout_engine("constrained", wspace=0.08)
        return svg(figure, "reliability", "error against predicted deviation, before and after calibration")


def scatter(points: Sequence[Scores], task: Task) -> str:
    """Draw predicted against true values, with a line for the central part of each answer."""
    values = [point[key] for point in points for key in ("value", "true")]
    fields = task.to_dict()
    log, unit = fields["log"], f", {fields['unit']}" if fields["unit"] else ""
    low, high = min(values), max(values)
    with mpl.rc_context(STYLE):
        figure, grid = _figure(5.6, 5.2)
        axes: Axes = grid[0, 0]
        axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
        true = [point["true"] for point in points]
        axes.vlines(
            true, [p["low"] for p in points], [p["high"] for p in points], color=ACCENT, alpha=0.25, linewidth=1
        )
        axes.scatter(true, [point["value"] for point in points], s=9, color=ACCENT, linewidth=0)
        if log:
            axes.set(xscale="log", yscale="log")
        margin = 0.03 * (high - low)
        bounds = (low / 1.1, high * 1.1) if log else (low - margin, high + margin)
        axes.set(xlim=bounds, ylim=bounds, xlabel=f"true value{unit}", ylabel=f"predicted value{unit}")
        return svg(figure, "scatter", "predicted against true values")


def learning_curves(epochs: Sequence[Scores], names: Sequence[str], task: Task) -> str:
    """Draw the main score on validation of each modality alone, and below it the part of the head's step that was kept."""
    kept = [name for name in names if f"kept/{name}" in epochs[-1]]
    with mpl.rc_context(STYLE):
        rows = 2 if kept else 1
        figure, grid = _figure(8.6, 1.9 * rows + 0.3, rows, len(names), sharey="row", sharex=True)
        for column, name in enumerate(names):
            at = [record["epoch"] for record in epochs]
            grid[0, column].plot(at, [r["val"].get(name, float("nan")) for r in epochs], **LINE_STYLES["calibrated"])
            grid[0, column].plot(
                at, [r["val"]["full"] for r in epochs], color=INK, linewidth=0.9, linestyle=(0, (1, 1.6))
            )
            grid[0, column].set_title(name)
            if name in kept:
                grid[1, column].plot(
                    at, [r.get(f"kept/{name}", float("nan")) for r in epochs], color=INK, linewidth=1.2
                )
            grid[-1, column].set_xlabel("epoch")
        grid[0, 0].set_ylabel(f"validation {task.title(task.main_scores[0])}")
        _score_axis(grid[0, 0].yaxis, task.main_scores[0])
        if kept:
            grid[1, 0].set_ylabel("‖Pg‖ / ‖g‖")
            grid[1, 0].set_ylim(0, 1.02)
        return svg(figure, "learning", "learning curves")


def corruption_curves(curves: Scores, without: Scores, task: Task) -> str:
    """Draw the main score against severity, a panel for each corruption of a modality: alone, fused, fused without it."""
    main, rules = task.main_scores[0], ("alone", "paper", "undiscounted", "calibrated")
    panels = [panel for name, corruptions in curves.items() for panel in _rows_of_panels(name, corruptions)]
    lowest = _lowest(s[rule][main] for _, _, by in filter(None, panels) for s in by.values() for rule in rules)
    with mpl.rc_context(STYLE):
        rows = len(panels) // PANELS
        figure, grid = _figure(8.6, 1.75 * rows + 0.4, rows, PANELS, sharex=True, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=True):
            if panel is None:
                axes.set_axis_off()
                continue
            name, corruption, by_severity = panel
            at = [int(severity) for severity in by_severity]
            for rule in rules:
                axes.plot(at, [s[rule][main] for s in by_severity.values()], label=rule, **LINE_STYLES[rule])
            if name in without:
                level = without[name]["calibrated"][main]
                axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (5, 4)), label="without it")
            axes.set_title(f"{name}: {corruption.replace('_', ' ')}", fontsize=9)
            axes.set_ylim(lowest, 1.03)
            axes.set_xticks(at)
            _score_axis(axes.yaxis, main)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        return svg(figure, "corruptions", f"{task.title(main)} under corruption")


def _rows_of_panels(name: str, corruptions: Mapping[str, Any]) -> list[tuple[str, str, Any] | None]:
    """List the panels of one modality, and None for the empty places at the end of its last row."""
    panels = [(name, corruption, by_severity) for corruption, by_severity in corruptions.items()]
    return [*panels, *[None] * (-len(panels) % PANELS)]
