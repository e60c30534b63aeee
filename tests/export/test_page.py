"""The report's page: what comes first, what is one line, what is left out, and that nothing of the data can break out of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mla_serve.export import report
from mla_serve.export.charts import same_curves
from mla_serve.export.combinations import MOST_ROWS
from mla_serve.export.media import LARGEST, payload_as_html
from mla_serve.export.numbers import all_numbers, conditions_table
from mla_serve.export.page import render
from mla_serve.export.plot import axis_from_zero
from mla_serve.export.sections import FIRST, MAX_CLASSES, MOST, SECTIONS
from mla_serve.export.wording import MEANINGS, likely_text, points_text
from mla_serve.tasks import Classes, Labels, Number

KINDS = {"word": "text", "<b>": "vector"}
RULES = ("calibrated", "paper", "undiscounted")
TASK = Classes(("yes", "<script>"))
SCORE = {"accuracy": 0.5, "macro_f1": 0.5, "nll": 0.7, "brier": 0.5, "ece": 0.1, "coverage": 0.9, "set_size": 1.5}
EXPERTS = re.compile(r"\b(?:NLL|ECE|entropy|nats|calibrated|conformal|quantile)\b")


def results(**changes: Any) -> dict[str, Any]:
    rules = dict.fromkeys(RULES, SCORE)
    curve = {"0": rules | {"alone": SCORE}, "5": rules | {"alone": SCORE}}
    bins = [{"confidence": 0.5, "accuracy": 0.5, "rows": 20}]
    conditions = dict.fromkeys(("full", "missing50", "word"), rules)
    return {
        "model": "a<i>b",
        "created": "2026-11-27T03:28:00+00:00",
        "about": {"purpose": "Says **yes**.", "limits": ["Noes <i>.", "Maybes."], "data": "A list.", "licence": "CC0"},
        "metrics": {"rows": 20, "split": "test", "asked_coverage": 0.9, "conditions": conditions},
        "intervals": {"word": {rule: {"accuracy": [0.4, 0.6]} for rule in RULES}},
        "missing_rates": {rule: {"10": SCORE, "80": SCORE} for rule in RULES},
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


def text_of(page: str) -> str:
    """Return what is read, without styles and tags."""
    without = re.sub(r"<style>.*?</style>|<(?:title|desc)>.*?</(?:title|desc)>|<[^>]+>", " ", page, flags=re.DOTALL)
    return without.replace("&nbsp;", " ")


def test_the_page_says_what_it_was_told_and_escapes_it() -> None:
    case = {"answer": "yes", "label": "<script>", "how": "<u>", "place": "<em>", "outputs": ["word", "<b>"]}
    page = render(results(), TASK, KINDS, [(case, {"word": "<marquee>", "<b>": [1.0, 2.5]})])
    assert not re.search(r"<(script|i|b>b|em>|marquee|u)>", page.replace("<em>calibrated</em>", ""))
    assert '<p class="warning">data: 3 rows have a copy &lt;u&gt;' in page
    assert "<b>+25.0 points</b>" in page
    assert "Learning curves" not in page
    assert page.count('class="warning"') == 1


def test_what_it_is_for_comes_first_and_what_experts_read_comes_last() -> None:
    page = render(results(), TASK, KINDS, [])
    order = [
        "<h1>a&lt;i&gt;b</h1>",
        "Says <strong>yes</strong>.",
        "one of 2 classes: yes, &lt;script&gt;",
        "Made on 27 November 2026",
        "<h2>Do not use it for</h2><ul><li>Noes &lt;i&gt;.</li><li>Maybes.</li></ul>",
        'class="tiles"',
        "How often it is right, by what is sent",
        "Where it goes wrong",
        "When inputs go missing",
        "When an input is spoiled",
        "Can its percentages be believed?",
        "Made from",
        "The rules compared",
        "All numbers",
    ]
    places = [page.index(each) for each in order]
    assert places == sorted(places)
    assert not EXPERTS.search(text_of(page[: page.index("Can its percentages be believed?")]))
    assert {"calibrated", "NLL", "nats"} <= set(EXPERTS.findall(text_of(page)))


def test_what_people_say_about_a_model_cannot_break_out_or_load_anything() -> None:
    evil = "<script>x</script> <img src=//e/x> ![p](http://e/y.png) [a](javascript:x) [b](https://example.org)\n\n# Big"
    about = {"purpose": evil, "limits": [evil, "<b>"], "data": evil, "licence": evil}
    page = render(results(about=about), TASK, KINDS, [])
    assert not re.search(r"<(script|img)", page)
    assert not re.search(r"(src|href)=\"(?!https://example\.org\"|http://e/y\.png\")", page)
    assert page.count("<h1") == 1
    assert not re.search(r"url\(|@import", page)


def test_nothing_told_is_said_as_such() -> None:
    nothing = {"purpose": "", "limits": [], "data": "", "licence": ""}
    page = render(results(about=nothing), TASK, KINDS, [])
    assert "Whoever trained it named nothing." in page
    assert "<dt>Licence</dt>" not in page


def test_what_is_not_known_is_left_out() -> None:
    many = Classes(tuple(str(number) for number in range(MAX_CLASSES + 1)))
    rows = [[0] * len(many.classes) for _ in many.classes]
    page = render(results(leave_one_out={}, confusion={"rows": rows}), many, KINDS, [])
    assert "confusion matrix" not in page
    assert "Most confidently wrong" not in page
    assert "What each input adds" not in page


def test_the_worst_classes_are_listed_first_with_what_they_were_taken_for() -> None:
    page = text_of(render(results(), TASK, KINDS, []))
    listed = page[page.index("mostly answered instead") :]
    assert re.search(r"yes\s+50\.0 %\s+10\s+&lt;script&gt; \(5\)\s+1 more\s", listed)
    assert re.search(r"&lt;script&gt;\s+10 of 10\s+10", listed)
    right = render(results(confusion={"rows": [[9, 0], [0, 9]]}), TASK, KINDS, [])
    assert "no answer was wrong" in right
    assert "confusion matrix" not in right


def test_columns_are_listed_with_what_they_are_worth() -> None:
    importance = {"facts": {"<price>": {"alone": 0.5, "fused": 0.25}, "brand": {"alone": -0.01, "fused": 0.0}}}
    page = render(results(metrics=results()["metrics"] | {"importance": importance}), TASK, KINDS, [])
    assert "Which columns of facts mattered" in page
    assert re.search(r"&lt;price&gt;\s+\+0\.500\s+\+0\.250\s+brand\s+-0\.010\s+\+0\.000", text_of(page))
    assert "mattered" not in render(results(), TASK, KINDS, [])


def test_each_modality_has_its_hue_by_its_place_in_the_model() -> None:
    conditions = dict.fromkeys(("full", "missing50", "word", "<b>", "word+<b>"), dict.fromkeys(RULES, SCORE))
    page = render(results(metrics=results()["metrics"] | {"conditions": conditions}), TASK, KINDS, [])
    chips = set(re.findall(r'<span class="chip (hue-\d)">([^<]+)<', page))
    assert chips == {("hue-0", "word"), ("hue-1", "&lt;b&gt;")}
    sent = re.findall(r'<tr><th scope="row">(.*?)</th>', page[page.index(">sent</th>") :])[:3]
    assert [each.count("chip") for each in sent] == [2, 1, 1]  # the most inputs first
    assert ".hue-0 { --hue:" in page


def test_many_combinations_are_folded_but_for_one_input_and_nearly_all() -> None:
    names = [*"abcdef"]
    sets = ["+".join(some) for size in range(1, 7) for some in itertools.combinations(names, size)]
    conditions = dict.fromkeys(("full", "missing50", *sets), dict.fromkeys(RULES, SCORE))
    metrics = results()["metrics"] | {"conditions": conditions}
    page = render(results(metrics=metrics, corruptions={}), TASK, dict.fromkeys(names, "text"), [])
    assert len(sets) > MOST_ROWS
    assert "<summary>The other 50 combinations</summary>" in page
    open_part = page[page.index(">sent</th>") : page.index("<summary>The other 50")]
    assert open_part.count('scope="row"') == 13


def test_groups_of_few_rows_come_last_and_the_rest_worst_first() -> None:
    scores = {"ann": 0.9, "bob": 0.7, "<cy>": 0.0}
    groups = {"word": {"accuracy": scores, "rows": {"ann": 10, "bob": 10, "<cy>": 2}, "worst": "bob"}}
    page = render(results(groups=groups), TASK, KINDS, [])
    listed = text_of(page[page.index("group of word") :])
    assert re.search(
        r"bob\s+70\.0 %\s+34\.8 to 93\.3 %\s+10\s+ann\s+90\.0 %\s+55\.5 to 99\.7 %\s+10\s+1 more; those", listed
    )
    assert re.search(r"&lt;cy&gt;\s+0\.0 %\s+0\.0 to 84\.2 %\s+2 \(few\)", listed)
    groups["word"]["accuracy"] = dict.fromkeys(scores, 1.0)
    assert "Groups of word: no answer was wrong in any of the 3." in render(results(groups=groups), TASK, KINDS, [])


def test_rules_and_conditions_with_the_same_numbers_are_one_row() -> None:
    other = SCORE | {"accuracy": 0.6}
    conditions = {
        "full": {"calibrated": SCORE, "paper": SCORE, "mean_logit": other},
        "word": {"calibrated": SCORE, "paper": SCORE, "mean_logit": other},
        "sound": {"calibrated": SCORE, "paper": other, "mean_logit": other},
    }
    table = conditions_table(conditions, ["accuracy"], TASK)
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", table)][1:]
    assert rows == [
        ["full, word", "calibrated, paper", "50.0 %"],
        ["", "mean_logit", "60.0 %"],
        ["sound", "calibrated", "50.0 %"],
        ["", "paper, mean_logit", "60.0 %"],
    ]


def test_curves_that_nearly_touch_everywhere_are_one_line() -> None:
    curves = {
        "a": {"10": {"accuracy": 0.9}, "80": {"accuracy": 0.8}},
        "b": {"10": {"accuracy": 0.904}, "80": {"accuracy": 0.796}},
        "c": {"10": {"accuracy": 0.9}, "80": {"accuracy": 0.79}},
    }
    assert same_curves(curves, "accuracy") == [["a", "b"], ["c"]]


@pytest.mark.parametrize("values", [[0.3], [7.0, 1234.5], [-2.0, 5.0], [0.0], [1e-9], [3e12]])
def test_axes_begin_at_zero_and_hold_every_value(values: list[float]) -> None:
    axis = axis_from_zero("", values)
    assert axis.low <= min([0.0, *values])
    assert axis.high >= max(values)
    assert 0 in [value for value, _ in axis.ticks]
    assert len(axis.ticks) <= 8


def test_a_perfect_share_is_said_by_what_it_is_at_least() -> None:
    assert likely_text(TASK, "accuracy", 1.0, [0.99265, 1.0]) == "at least 99.2 %"
    assert likely_text(TASK, "accuracy", 0.99, [0.982, 0.996]) == "98.2 to 99.6 %"
    assert likely_text(Number("price", "EUR"), "mae", 2.0, [1.5, 2.5]) == "1.50 to 2.50"
    assert likely_text(TASK, "micro_f1", 1.0, [1.0, 1.0]) == ""  # resamples of rows that were all right


def test_a_change_of_nothing_has_no_sign() -> None:
    assert [points_text(change) for change in (0.25, -0.016, 0.0, -0.0004)] == ["+25.0", "-1.6", "0.0", "0.0"]


def test_a_model_of_one_modality_says_nothing_of_missing_ones() -> None:
    page = text_of(render(results(), TASK, {"word": "text"}, []))
    assert "half of the inputs" not in page
    assert "When inputs go missing" not in page
    assert "half of the inputs" in text_of(render(results(), TASK, KINDS, []))


def test_more_classes_than_are_listed_are_counted() -> None:
    count = MOST + 50
    many = Classes(tuple(str(number) for number in range(count)))
    rows = [[1 if column == (row + 1) % count else 0 for column in range(count)] for row in range(count)]
    page = render(results(confusion={"rows": rows}), many, KINDS, [])
    assert f"{MOST - FIRST} more; {MOST} of {count} are listed" in page


def test_what_is_nowhere_pooled_has_no_column() -> None:
    def columns(share: float) -> list[str]:
        conditions = {"full": {"calibrated": SCORE | {"pooled": share}}}
        return re.findall(r'<th scope="col">([^<]+)</th>', all_numbers(conditions, {}, TASK))

    assert [*columns(0.0), "pooled"] == columns(0.5)


def test_every_score_has_a_meaning() -> None:
    bounds = {"coverage", "set_size", "set_fnr", "width", "pooled"}
    answers, targets = np.array([[2.0, -1.0], [-1.0, 2.0]]), {"classes": np.array([0, 1]), "labels": np.eye(2)}
    scores = {key for task in (TASK, Labels(("a", "b"))) for key in task.score(answers, targets[task.name])}
    scores |= set(Number("price").score(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([0.5, 1.0])))
    assert scores | bounds == MEANINGS.keys()


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
        (
            {"a<b": "<i>", "n": 1.5},
            '<tr><th scope="row">a&lt;b</th><td>&lt;i&gt;</td></tr><tr><th scope="row">n</th><td>1.5</td></tr>',
        ),
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

    def tiles(half: Mapping[str, float]) -> int:
        conditions = {"full": {"calibrated": scores}, "missing50": {"calibrated": half}}
        return len(SECTIONS["number"].tiles(Number("price"), {"rows": 9, "conditions": conditions}, True))

    assert tiles(scores) == 3
    assert tiles(scores | {"width": 3.0}) == 4


def test_a_score_that_one_condition_lacks_leaves_its_cell_empty() -> None:
    """The other conditions have enough validation rows for intervals with ends."""
    scores = {"r2": 0.5, "mae": 2.0, "coverage": 1.0, "pooled": 0.0}
    conditions = {"full": {"calibrated": scores}, "word": {"calibrated": scores | {"width": 3.0}}}
    table = conditions_table(conditions, [*scores, "width"], Number("price"))
    assert table.count("<td class=number>–</td>") == 1
    assert "<td class=number>3.00</td>" in table
