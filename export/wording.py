"""How the report and the model card write scores, dates and Markdown. Numbers look as on the page: 99.0 %, 500 of 500."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence

from mla_serve.bundle.markdown import to_html
from mla_serve.decimals import percent
from mla_serve.tasks import Task

SHARES = ("accuracy", "macro_f1", "micro_f1", "map", "ece", "fnr", "precision", "coverage", "set_fnr", "pooled")
"""Scores that are shares of one, and are written in per cent."""
MEANINGS = {
    "accuracy": "share of right answers",
    "macro_f1": "F1 (the mean of how many answers are right and how many truths are found) of each class or label, averaged over them",
    "micro_f1": "how many of the answered labels are right and how many of the true ones are found, as one number (F1) over all labels",
    "map": "mean average precision: how far up the true labels are when all are sorted by probability",
    "nll": "how surprised the model is by the truth, in nats; 0 is best",
    "brier": "mean squared error of the probabilities; 0 is best",
    "ece": "how far its probabilities are from how often it is right, on average (calibration error)",
    "precision": "share of the answered labels that are right",
    "fnr": "share of a row’s labels that are not answered",
    "coverage": "how often the shortlist or range holds the truth",
    "set_size": "labels in a shortlist, on average",
    "set_fnr": "share of a row’s labels that its shortlist lacks",
    "width": "width of a range, on average",
    "pooled": "share of shortlists or ranges that rest on validation rows with other inputs",
    "r2": "share of the variation that is explained; 1 is best, 0 is what the mean of all rows reaches",
    "mae": "error of an answer, on average (mean absolute error)",
    "rmse": "the same with large errors counting more (root of the mean squared error)",
}


def score_text(task: Task, score: str, value: float) -> str:
    """Write the value of a score: a share in per cent, anything else as the task does."""
    return percent(value) if score in SHARES else task.shown(score, value)


def score_cell(task: Task, score: str, scores: Mapping[str, float]) -> str:
    """Write a score for a table; a dash where it was not measured."""
    return score_text(task, score, scores[score]) if score in scores else "–"


def share_of_rows(score: str, value: float, rows: int | None) -> str:
    """Write an accuracy: "500 of 500" where every answer is right, else in per cent. Args: rows, None where not known."""
    return f"{rows:,} of {rows:,}" if score == "accuracy" and value == 1 and rows else percent(value)


def likely_text(task: Task, score: str, value: float, ends: Sequence[float]) -> str:
    """Write a 95 % interval: "97.2 to 99.4 %"; "at least 99.2 %", rounded down, where the share is 1.

    "" for an interval of 1 alone: it comes from resampling rows that were all right, and says nothing of others.
    """
    if score in SHARES and ends[0] == 1:
        return ""
    if score in SHARES and value == 1:
        return f"at least {math.floor(1000 * ends[0]) / 10:.1f} %"
    low, high = (score_text(task, score, end) for end in ends)
    if low.endswith(" %") and high.endswith(" %"):
        low = low.removesuffix(" %")
    return f"{low} to {high}"


def points_text(change: float) -> str:
    """Write the change of a share in points: "+1.6"; "0.0" without a sign."""
    return f"{100 * change:+.1f}" if abs(round(100 * change, 1)) else "0.0"


def date_text(created: str) -> str:
    """Write the day of an ISO time: 27 November 2026."""
    day = datetime.datetime.fromisoformat(created)
    return f"{day.day} {day:%B %Y}"


def joined(names: Sequence[str]) -> str:
    """Join names: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def markdown(text: str) -> str:
    """Return Markdown as HTML without pictures, so that nothing is fetched; its headings are bold lines."""
    return re.sub(r"(</?)h[1-6]>", _as_bold, to_html(text))


def _as_bold(tag: re.Match[str]) -> str:
    return "</strong></p>" if tag[1] == "</" else "<p><strong>"
