"""report.html: one file, no network, light and dark, prints well."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export import charts
from mla_serve.inputs import Payload

STYLE = Path(__file__).with_name("report.css")
LARGEST = 300_000  # bytes of a picture or sound that is shown
MOST_CLASSES = 30  # in the confusion matrix
Case = tuple[Mapping[str, Any], Mapping[str, Payload]]


def render(results: Mapping[str, Any], classes: Sequence[str], kinds: Mapping[str, str], shown: Sequence[Case]) -> str:
    """Write the page. Args: shown, the most confidently wrong cases with their payloads; none when they may not be."""
    sections = [
        _head(results, kinds),
        *_first(results),
        _section(
            "How it learned",
            "Validation accuracy of each modality alone (all together dotted); below, how much of the head’s step was left after protecting what the other modalities had learned.",
            charts.learning_curves(results["epochs"], list(kinds)),
        )
        if results["epochs"]
        else "",
        _corruptions(results),
        _confusion(results["confusion"]["rows"], classes),
        _wrongest(shown, kinds),
        _tables(results),
        _configuration(results),
    ]
    title = html.escape(results["model"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}: report</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


def _section(title: str, says: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><p>{says}</p>{body}</section>"


def _head(results: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    metrics = results["metrics"]
    full = metrics["conditions"]["full"]["calibrated"]
    half = metrics["conditions"]["missing50"]["calibrated"]
    tiles = [
        (f"{full['accuracy']:.1%}", "right with all there is"),
        (f"{half['accuracy']:.1%}", "right with half missing"),
        (f"{full['ece']:.1%} / {half['ece']:.1%}", "calibration error, all / half missing"),
    ]
    if "set_size" in half:
        tiles.append(
            (
                f"{half['set_size']:.2f} labels",
                f"in a {metrics['asked_coverage']:.0%} set, half missing; holds the true one {half['coverage']:.0%}",
            )
        )
    cells = "".join(f"<div><b>{value}</b><span>{html.escape(says)}</span></div>" for value, says in tiles)
    warnings = "".join(
        f'<p class="warning">{html.escape(n)}</p>' for n in results["training"]["notes"] if n.startswith("VALIDATION")
    )
    return (
        f"<header><h1>{html.escape(results['model'])}</h1><p>{metrics['rows']} rows of <em>{metrics['split']}</em>, "
        f"any of {html.escape(', '.join(kinds))}; measured through the exported graphs.</p>{warnings}"
        f'<div class="tiles">{cells}</div></header>'
    )


def _first(results: Mapping[str, Any]) -> list[str]:
    conditions = results["metrics"]["conditions"]
    before, after = results["reliability"]["paper"], results["reliability"]["calibrated"]
    marks = ("Before: the paper’s rule", "After: calibrated")
    return [
        _section(
            "What it knows from what it gets",
            "Accuracy by what is there. Line: 95 % of bootstrap resamples; mark: the paper’s rule.",
            charts.pattern_bars(conditions, results["intervals"]),
        ),
        _section(
            "When modalities go missing",
            "Each is dropped independently, one at least stays; the mean over random masks.",
            charts.missing_curves(results["missing_rates"]),
        ),
        _section(
            "Whether it means what it says",
            "Over all availability patterns. On the diagonal, 80 % is right 80 % of the time; dots are as large as the share of answers.",
            charts.reliability(before, after, marks),
        ),
    ]


def _corruptions(results: Mapping[str, Any]) -> str:
    says = f"Accuracy over {results['corruption_rows']} rows, from unspoiled (0) to the fifth degree, with the other modalities as they were. A good fusion stays above the dashed line: what it would know without that modality."
    drawing = charts.corruption_curves(results["corruptions"], results["corruption_baseline"])
    return _section("When one modality is spoiled", says, drawing)


def _confusion(rows: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    if len(classes) > MOST_CLASSES:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in classes)
    body = ""
    for name, row in zip(classes, rows, strict=True):
        cells = "".join(_shade(count, sum(row)) for count in row)
        body += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
    table = f'<table class="confusion"><tr><th></th>{head}</tr>{body}</table>'
    return _section("What it mistakes for what", "Rows are the truth, columns the answer, with all there is.", table)


def _shade(count: int, total: int) -> str:
    share = round(100 * count / max(total, 1))
    return f'<td style="--share:{share}%"{" class=dark" if share > 55 else ""}>{count or ""}</td>'


def _wrongest(shown: Sequence[Case], kinds: Mapping[str, str]) -> str:
    if not shown:
        return ""
    cards = []
    for case, sample in shown:
        media = "".join(_media(name, kinds[name], sample[name]) for name in case["heard"])
        cards.append(
            f"<figure>{media}<figcaption><b>{html.escape(case['answer'])}</b>, it said, {case['probability']:.0%} sure; it is "
            f"<b>{html.escape(case['label'])}</b>. <small>{html.escape(case['id'])}, from {html.escape(', '.join(case['heard']))}</small></figcaption></figure>"
        )
    return _section(
        "Most confidently wrong",
        "With all that a row has; where those are few, with one modality alone.",
        f'<div class="cards">{"".join(cards)}</div>',
    )


def _media(name: str, kind: str, payload: Payload) -> str:
    if kind in ("image", "audio") and isinstance(payload, bytes):
        if len(payload) > LARGEST:
            return f"<p><small>{html.escape(name)}: {len(payload):,} bytes, too large to show</small></p>"
        content = base64.b64encode(payload).decode()
        if kind == "image":
            return f'<img alt="{html.escape(name)}" src="data:{_image_type(payload)};base64,{content}">'
        return f'<audio controls src="data:{_sound_type(payload)};base64,{content}"></audio>'
    text = payload if isinstance(payload, str) else " ".join(f"{value:.3g}" for value in list(payload)[:12])
    return f"<blockquote>{html.escape(str(text)[:300])}</blockquote>"


def _image_type(payload: bytes) -> str:
    signs = {
        b"\x89PNG": "image/png",
        b"\xff\xd8": "image/jpeg",
        b"GIF8": "image/gif",
        b"RIFF": "image/webp",
        b"BM": "image/bmp",
    }
    return next((kind for sign, kind in signs.items() if payload.startswith(sign)), "image/tiff")


def _sound_type(payload: bytes) -> str:
    signs = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg"}
    return next((kind for sign, kind in signs.items() if payload.startswith(sign)), "audio/mpeg")


def _tables(results: Mapping[str, Any]) -> str:
    metrics = results["metrics"]
    known = metrics["conditions"]["full"]["calibrated"]
    keys = [k for k in ("accuracy", "macro_f1", "nll", "brier", "ece", "coverage", "set_size") if k in known]
    head = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in keys)
    body = ""
    for condition, rules in metrics["conditions"].items():
        for rule, scores in rules.items():
            cells = "".join(f"<td>{scores[key]:.3f}</td>" for key in keys)
            body += f"<tr><th>{html.escape(condition)}</th><th>{rule}</th>{cells}</tr>"
    lost = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{scores['lost']:+.3f}</td>" for scores in rules.values())
        + "</tr>"
        for name, rules in results["leave_one_out"].items()
    )
    rules = "".join(f"<th>{rule}</th>" for rule in results["missing_rates"])
    return _section(
        "All numbers",
        "Also in report.json, with intervals.",
        f'<div class="wide"><table><tr><th></th><th></th>{head}</tr>{body}</table></div>',
    ) + (
        _section(
            "What each modality is worth",
            "Accuracy that goes when it is left out.",
            f"<table><tr><th></th>{rules}</tr>{lost}</table>",
        )
        if lost
        else ""
    )


def _configuration(results: Mapping[str, Any]) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in results["training"]["notes"])
    text = json.dumps({"training": results["training"], "fusion": results["fusion"]}, indent=1, ensure_ascii=False)
    return f"<section><h2>How it was made</h2><ul>{notes}</ul><details><summary>Full configuration</summary><pre>{html.escape(text)}</pre></details></section>"
