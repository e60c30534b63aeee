"""Draw the dashboard without Grafana: its panels where it puts them, its expressions answered by Prometheus."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.demo.prometheus import DEPLOY, Prometheus
from mla_serve import palette

DASHBOARD = DEPLOY / "grafana" / "mla_serve.json"
COLUMNS, INCHES, ROW_INCHES = 24, 14.0, 0.28
STEP_S = 1.0
LEGEND = re.compile(r"\{\{(\w+)\}\}")
COLOURS = [light for light, _ in palette.hues()]


class Drawing:
    """What every panel needs: a Prometheus, the time, and what stands for the dashboard's variables."""

    def __init__(
        self, prometheus: Prometheus, marks: Mapping[str, float], end: float, modality: str, window_s: float
    ) -> None:
        self.prometheus = prometheus
        self.marks = marks
        self.start = min(marks.values())
        self.end = end
        self.variables = {"$__rate_interval": f"{window_s:.0f}s", "$modality": modality}

    def fill(self, text: str) -> str:
        """Put values in the place of variables."""
        for name, value in self.variables.items():
            text = text.replace(name, value)
        return text

    def series(self, panel: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Ask what a panel asks: legend -> (seconds, values)."""
        found = {}
        for target in panel["targets"]:
            for result in self.prometheus.range(self.fill(target["expr"]), self.start, self.end, STEP_S):
                labels = result["metric"]
                name = LEGEND.sub(lambda key, labels=labels: labels.get(key[1], ""), target["legendFormat"]).strip()
                values = np.array(result["values"], dtype=np.float64)
                found[name] = values[:, 0] - self.start, values[:, 1]
        return dict(sorted(found.items()))


def draw(
    prometheus: Prometheus, marks: Mapping[str, float], end: float, modality: str, out: Path, window_s: float
) -> None:
    """Draw every panel into a PNG.

    Args: marks, when each phase began; end, both in seconds since 1970; modality, of the dashboard's variable;
    window_s, for $__rate_interval.
    """
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    drawing = Drawing(prometheus, marks, end, modality, window_s)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(INCHES, rows * ROW_INCHES), dpi=80)
        for panel in dashboard["panels"]:
            _panel(figure, panel, rows, drawing)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    staged = out.with_suffix(".part")
    staged.write_bytes(_smaller(buffer.getvalue()))
    staged.replace(out)


def _smaller(png: bytes) -> bytes:
    """Keep 64 colours."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _panel(figure: Figure, panel: Mapping[str, Any], rows: int, drawing: Drawing) -> None:
    at, stat = panel["gridPos"], panel["type"] == "stat"
    left, right = (0.035, 0.012) if panel["type"] != "state-timeline" else (0.14, 0.012)
    below, above = (1.6, 1.6) if not stat else (0.3, 1.3)
    box = (
        at["x"] / COLUMNS + left,
        1 - (at["y"] + at["h"] - below) / rows,
        at["w"] / COLUMNS - left - right,
        (at["h"] - below - above) / rows,
    )
    axes = figure.add_axes(box)
    timeline = panel["type"] == "state-timeline"
    axes.set_title(drawing.fill(panel["title"]), loc="left", fontsize=9, fontweight="bold", pad=14 if timeline else 6)
    KINDS[panel["type"]](axes, panel, drawing)
    if not stat:
        _phases(axes, drawing, names=timeline)


def _phases(axes: Axes, drawing: Drawing, names: bool) -> None:
    axes.set_xlim(0, drawing.end - drawing.start)
    axes.xaxis.set_major_formatter("{x:.0f} s")
    for title, when in drawing.marks.items():
        axes.axvline(when - drawing.start, color="#888888", linewidth=0.8, linestyle=":")
        if names:
            axes.annotate(f" {title}", (when - drawing.start, 1), xycoords=("data", "axes fraction"), va="bottom")


def _stat(axes: Axes, panel: Mapping[str, Any], drawing: Drawing) -> None:
    axes.set_axis_off()
    values = [each[1][-1] for each in drawing.series(panel).values()]
    scale, unit = (1000, " ms") if panel["fieldConfig"]["defaults"]["unit"] == "s" else (1, "")
    text = f"{scale * values[0]:.3g}{unit}" if values and np.isfinite(values[0]) else "no data"
    axes.text(0, 0.35, text, fontsize=20, color="#3a9a5b", va="center")


def _lines(axes: Axes, panel: Mapping[str, Any], drawing: Drawing) -> None:
    series, defaults = drawing.series(panel), panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    if "stacking" in custom and series:
        times = np.unique(np.concatenate([when for when, _ in series.values()]))
        heights = [np.interp(times, when, values, left=0, right=0) for when, values in series.values()]
        axes.stackplot(times, heights, labels=list(series), colors=COLOURS, alpha=0.7)
    else:
        for colour, (name, (times, values)) in zip(COLOURS * 4, series.items(), strict=False):
            axes.plot(times, values, color=colour, label=name, linewidth=1.6)
    for step in defaults.get("thresholds", {}).get("steps", []) if "thresholdsStyle" in custom else []:
        if step["value"] is not None:
            axes.axhline(step["value"], color="#c4162a", linestyle="--", linewidth=0.8)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    elif "min" in defaults:
        axes.set_ylim(defaults["min"], 1.05 * defaults["max"] if "max" in defaults else None)
    axes.grid(visible=True, color="#eeeeee")
    if series:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.01, -0.1), ncols=4, frameon=False, fontsize=7)


def _heatmap(axes: Axes, panel: Mapping[str, Any], drawing: Drawing) -> None:
    series = drawing.series(panel)
    bounds = sorted((float(name), *each) for name, each in series.items() if np.isfinite(float(name)))
    if not bounds:
        return
    times = bounds[0][1]
    counts = np.diff([np.zeros(len(times)), *(np.interp(times, when, values) for _, when, values in bounds)], axis=0)
    axes.imshow(
        counts, origin="lower", aspect="auto", cmap="Blues", extent=(times[0], times[-1], -0.5, len(bounds) - 0.5)
    )
    form = ".0%" if panel["options"]["yAxis"]["unit"] == "percentunit" else "g"
    axes.set_yticks(range(len(bounds)), [f"≤ {bound:{form}}" for bound, *_ in bounds], fontsize=6)


def _timeline(axes: Axes, panel: Mapping[str, Any], drawing: Drawing) -> None:
    series = drawing.series(panel)
    for row, (times, _) in enumerate(series.values()):
        axes.broken_barh([(when, STEP_S) for when in times], (row - 0.4, 0.8), color="#c4162a")
    axes.set_yticks(range(len(series)), list(series))
    axes.set_ylim(len(series) - 0.5, -0.5)


KINDS = {"stat": _stat, "timeseries": _lines, "heatmap": _heatmap, "state-timeline": _timeline}
