"""The charts of the report as inline SVG. matplotlib draws them; the CSS of the page sets their colours, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
MIN_ANSWERS = 10  # in a dot of the reliability diagram


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


def pattern_bars(conditions: Scores, intervals: Scores) -> str:
    """Draw the accuracy of every availability pattern as bars with intervals, and that of the paper's rule as marks."""
    names = [name for name in conditions if not name.startswith("missing") and name != "full"][::-1]
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 0.36 * len(names) + 0.7)
        axes: Axes = grid[0, 0]
        for at, name in enumerate(names):
            value = conditions[name]["calibrated"]["accuracy"]
            low, high = intervals[name]["calibrated"]["accuracy"]
            axes.barh(at, value, height=0.62, color=ACCENT, alpha=0.85)
            axes.plot([low, high], [at, at], color=INK, linewidth=1.2)
            paper = conditions[name]["paper"]["accuracy"]
            axes.plot([paper, paper], [at - 0.31, at + 0.31], color=INK, linewidth=2)
        shown = [f"{name}   {conditions[name]['calibrated']['accuracy']:.1%}" for name in names]
        axes.set_yticks(range(len(names)), shown)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        return svg(figure, "patterns", "accuracy by availability pattern")


def missing_curves(curves: Scores) -> str:
    """Draw accuracy and NLL against the missing rate, one line for each rule."""
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 3.2, 1, 2)
        for axes, (key, title) in zip(grid[0], (("accuracy", "Accuracy"), ("nll", "NLL, nats")), strict=True):
            for rule, by_rate in curves.items():
                rates = [int(rate) for rate in by_rate]
                axes.plot(
                    rates, [s[key] for s in by_rate.values()], label=rule, **LINE_STYLES.get(rule, {"color": FAINT})
                )
            axes.set_title(title)
            axes.set_xlabel("% of modalities missing")
        grid[0, 0].yaxis.set_major_formatter("{x:.0%}")
        grid[0, 0].legend(frameon=False, loc="lower left", handlelength=2.4)
        return svg(figure, "missing", "accuracy and NLL against the missing rate")


def reliability(before: Sequence[Scores], after: Sequence[Scores], marks: Sequence[str]) -> str:
    """Draw accuracy against confidence, by the paper's rule and calibrated. The area of a dot shows how many answers."""
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 3.7, 1, 2, sharey=True)
        for axes, bins, title, colour in zip(grid[0], (before, after), marks, (INK, ACCENT), strict=True):
            total = sum(one["rows"] for one in bins)
            bins = [one for one in bins if one["rows"] >= MIN_ANSWERS]
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
            axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], color=colour, linewidth=1.2)
            sizes = [12 + 500 * b["rows"] / total for b in bins]
            axes.scatter(
                [b["confidence"] for b in bins],
                [b["accuracy"] for b in bins],
                s=sizes,
                color=colour,
                alpha=0.75,
                linewidth=0,
                clip_on=False,
            )
            axes.set_title(title)
            axes.set_xlabel("confidence")
            axes.set(xlim=(0, 1.04), ylim=(0, 1.04), xticks=TICKS, yticks=TICKS)
            axes.xaxis.set_major_formatter("{x:.0%}")
            axes.yaxis.set_major_formatter("{x:.0%}")
        grid[0, 0].set_ylabel("accuracy")
        figure.set_layout_engine("constrained", wspace=0.08)
        return svg(figure, "reliability", "reliability before and after calibration")


def learning_curves(epochs: Sequence[Scores], names: Sequence[str]) -> str:
    """Draw the validation accuracy of each modality alone, and below it the part of the head's step that was kept."""
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
        grid[0, 0].set_ylabel("validation accuracy")
        grid[0, 0].yaxis.set_major_formatter("{x:.0%}")
        if kept:
            grid[1, 0].set_ylabel("‖Pg‖ / ‖g‖")
            grid[1, 0].set_ylim(0, 1.02)
        return svg(figure, "learning", "learning curves")


def corruption_curves(curves: Scores, without: Scores) -> str:
    """Draw accuracy against severity, a panel for each corruption of a modality: alone, fused, and fused without it."""
    columns = max(map(len, curves.values()))
    with mpl.rc_context(STYLE):
        figure, grid = _figure(8.6, 1.75 * len(curves) + 0.4, len(curves), columns, sharex=True, sharey=True)
        for row, (name, corruptions) in enumerate(curves.items()):
            for column in range(columns):
                if column >= len(corruptions):
                    grid[row, column].set_axis_off()
            for axes, (corruption, by_severity) in zip(grid[row], corruptions.items(), strict=False):
                at = [int(severity) for severity in by_severity]
                for rule in ("alone", "paper", "undiscounted", "calibrated"):
                    axes.plot(at, [s[rule]["accuracy"] for s in by_severity.values()], label=rule, **LINE_STYLES[rule])
                if name in without:
                    level = without[name]["calibrated"]["accuracy"]
                    axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (5, 4)), label="without it")
                axes.set_title(f"{name}: {corruption.replace('_', ' ')}", fontsize=9)
                axes.set_ylim(0, 1.03)
                axes.set_xticks(at)
                axes.yaxis.set_major_formatter("{x:.0%}")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        return svg(figure, "corruptions", "accuracy under corruption")
