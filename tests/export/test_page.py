"""The report's page: what is shown of a payload, what is left out, and that nothing of the data can break out of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mla_serve.export import report
from mla_serve.export.media import LARGEST, payload_as_html
from mla_serve.export.page import _numbers, render
from mla_serve.export.sections import MAX_CLASSES, SECTIONS
from mla_serve.tasks import Classes, Number

KINDS = {"word": "text", "<b>": "vector"}
RULES = ("calibrated", "paper", "undiscounted")
TASK = Classes(("yes", "<script>"))


def results(**changes: Any) -> dict[str, Any]:
    score = {"accuracy": 0.5, "macro_f1": 0.5, "nll": 0.7, "brier": 0.5, "ece": 0.1, "coverage": 0.9, "set_size": 1.5}
    rules = dict.fromkeys(RULES, score)
    curve = {"0": rules | {"alone": score}, "5": rules | {"alone": score}}
    bins = [{"confidence": 0.5, "accuracy": 0.5, "rows": 20}]
    conditions = dict.fromkeys(("full", "missing50", "word"), rules)
    return {
        "model": "a<i>b",
        "metrics": {"rows": 20, "split": "test", "asked_coverage": 0.9, "conditions": conditions},
        "intervals": {"word": {rule: {"accuracy": [0.4, 0.6]} for rule in RULES}},
        "missing_rates": {rule: {"10": score, "80": score} for rule in RULES},
        "reliability": {"paper": bins, "calibrated": bins},
        "epochs": [],
        "corruptions": {"word": {"typos": curve}},
        "corruption_baseline": {"word": rules},
        "corruption_rows": 20,
        "confusion": {"rows": [[5, 5], [0, 10]]},
        "leave_one_out": {"word": {rule: {"lost": 0.25} for rule in RULES}},
        "training": {
            "notes": ["data: 3 rows have a copy <u>", "20 rows", "VALIDATION MAY BE TOO EASY: of an older version"]
        },
        "fusion": {},
    } | changes


def test_the_page_says_what_it_was_told_and_escapes_it() -> None:
    case = {"answer": "yes", "label": "<script>", "how": "<u>", "place": "<em>", "outputs": ["word", "<b>"]}
    page = render(results(), TASK, KINDS, [(case, {"word": "<marquee>", "<b>": [1.0, 2.5]})])
    assert not re.search(r"<(script|i|b>b|em>|marquee|u)>", page.replace("<em>test</em>", ""))
    assert '<p class="warning">data: 3 rows have a copy &lt;u&gt;' in page
    assert "+0.250" in page
    assert "Learning curves" not in page
    assert page.count('class="warning"') == 1


def test_what_is_not_known_is_left_out() -> None:
    many = Classes(tuple(str(number) for number in range(MAX_CLASSES + 1)))
    page = render(results(leave_one_out={}), many, KINDS, [])
    assert "Confusion matrix" not in page
    assert "Most confidently wrong" not in page
    assert "What each modality is worth" not in page


def test_columns_are_listed_with_what_they_are_worth() -> None:
    importance = {"facts": {"<price>": {"alone": 0.5, "fused": 0.25}, "brand": {"alone": -0.01, "fused": 0.0}}}
    page = render(results(metrics=results()["metrics"] | {"importance": importance}), TASK, KINDS, [])
    assert "Which columns of facts mattered" in page
    row = '&lt;price&gt;</th><td style="--share:100%">+0.500</td><td style="--share:50%">+0.250</td>'
    assert row in page
    assert '<td style="--share:0%">-0.010</td>' in page
    assert "mattered" not in render(results(), TASK, KINDS, [])


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n....", '<img alt="a&lt;b" src="data:image/png;base64,'),
        (b"RIFF....WEBP", 'src="data:image/webp;base64,'),
        (b"RIFF....WAVE", '<audio controls src="data:audio/wav;base64,'),
        (b"\xff\xfb\x90\0", 'src="data:audio/mpeg;base64,'),
        (b"\x89PNG\r\n\x1a\n" + bytes(LARGEST), "a&lt;b: 300,008 bytes, too large to show"),
        (b"????", "a&lt;b: 4 bytes, cannot be shown"),
        ("a" * 400, "a" * 300 + "</blockquote>"),
        ({"a<b": "<i>", "n": 1.5}, "<tr><th>a&lt;b</th><td>&lt;i&gt;</td></tr><tr><th>n</th><td>1.5</td></tr>"),
        ([0.12345] * 20, " ".join(["0.123"] * 12) + "</blockquote>"),
    ],
)
def test_a_payload_is_shown_as_what_it_is(payload: Any, shown: str) -> None:
    assert shown in payload_as_html("a<b", payload)


def test_the_same_mistake_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["het", "het", "sju", "acht"]
    rows = [SimpleNamespace(values={"word": word}) for word in words]

    def wrong(_: object, __: object, mask: np.ndarray[Any, Any]) -> list[Mapping[str, Any]]:
        return [{"row": b, "outputs": ["word"], "surprise": 0.9 - b / 10} for b in np.flatnonzero(mask[0])]

    monkeypatch.setattr(report, "_wrong", wrong)
    split_run: Any = SimpleNamespace(rows=rows, outputs=SimpleNamespace(present=np.ones((1, 4), dtype=bool)))
    predictor: Any = None
    assert [case["row"] for case in report._wrongest(predictor, split_run)] == [0, 2, 3]


def test_a_number_whose_intervals_have_no_end_has_no_tile_for_their_width() -> None:
    """Too few validation rows give such intervals, and then the scores lack their width."""
    scores = {"r2": 0.5, "mae": 2.0, "coverage": 1.0}
    tiles = SECTIONS["number"].tiles
    assert len(tiles(Number("price"), scores, scores, 0.9)) == 1
    assert len(tiles(Number("price"), scores, scores | {"width": 3.0}, 0.9)) == 2


def test_a_score_that_one_condition_lacks_leaves_its_cell_empty() -> None:
    """The other conditions have enough validation rows for intervals with ends."""
    scores = {"r2": 0.5, "mae": 2.0, "coverage": 1.0, "pooled": 0.0}
    conditions = {"full": {"calibrated": scores}, "word": {"calibrated": scores | {"width": 3.0}}}
    for shown in (conditions, dict(reversed(conditions.items()))):
        table = _numbers(shown, Number("price"))
        assert table.count("<th>width</th>") == 1
        assert table.count("<td>–</td>") == 1
        assert "<td>3.00</td>" in table
