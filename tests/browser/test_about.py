"""The pages about the model: every number is that of GET /model, no text of a bundle runs, and keys are asked for."""

from __future__ import annotations

import json
import math
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mla_serve.bundle.about import About
from mla_serve.bundle.manifest import Bundle, write_manifest
from mla_serve.decimals import percent
from mla_serve.evaluation.share_interval import exact_interval
from tests.browser.harness import serving
from tests.conftest import subsets

KEY = "open-sesame-open-sesame"
KINDS = {"image": "image", "rear_camera": "image", "audio": "audio", "text": "text", "vector": "vector", "more": "text"}
CLASSES = ["<img src=x onerror=document.hacked=1>", "</script><script>document.hacked=1</script>", "plain"]
ROWS = 500
HOSTILE = """<!doctype html><html><head><meta http-equiv="refresh" content="1;url=/docs">
<style>body { color: rgb(1, 2, 3); height: 1500px; margin: 0 }</style></head>
<body onload="parent.document.hacked=1"><p id="seen" style="margin-left: 7px">measured</p>
<script>document.hacked=1; parent.document.hacked=1</script><img src=x onerror="parent.document.hacked=1">
<svg onload="parent.document.hacked=1"></svg><iframe src="/docs"></iframe>
<a href="javascript:parent.document.hacked=1">run</a> <a href="https://example.org/">away</a>
<form action="/predict" method="post"><button>send</button></form></body></html>"""


def measured() -> dict[str, Any]:
    """Make up what was measured: every combination has another accuracy, and the best ones have no error."""
    names = ["+".join(subset) for subset in subsets(list(KINDS))]
    hits = {name: min(ROWS - 3 * place, ROWS) for place, name in enumerate(reversed(names))}
    hits |= {"full": ROWS, "missing50": 466}
    scores = {
        name: {"accuracy": count / ROWS, "ece": 0.0256, "set_size": 1.163, "coverage": 0.9553}
        for name, count in hits.items()
    }
    return {
        "split": "test",
        "rows": ROWS,
        "condition_rows": {name: ROWS if name != "text" else 321 for name in hits},
        "asked_coverage": 0.9,
        "conditions": {name: {"calibrated": own} for name, own in scores.items()},
        "intervals": {name: {"accuracy": exact_interval(count, ROWS)} for name, count in hits.items()},
    }


@pytest.fixture(scope="module")
def told_address(
    playwright: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve a bundle with hostile texts, a hostile report and a card, to those who have a key."""
    folder = tmp_path_factory.mktemp("about") / "told"
    about = About(
        purpose="For **tests**, <script>document.hacked=1</script>.",
        limits=[
            "[lies](https://example.org/) and",
            "<img src=x onerror=document.hacked=1>",
            "[x](javascript:document.hacked=1)",
        ],
        data="Two\n\nparagraphs, then:\n\n| a |\n|---|\n| 1 |",
        licence="CC0",
    )
    training = {"notes": ["2000 rows for train", "400 rows for val", "500 rows for test"]}
    make_bundle(folder, KINDS, CLASSES, metrics=measured(), about=about, training=training)
    manifest = Bundle.load(folder).manifest
    (folder / "report.html").write_text(HOSTILE, encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text("# told\n\nA card.\n\n| a | <b> |\n|---|---|\n| 1 | 2 |\n", encoding="utf-8")
    write_manifest(folder, manifest)
    keys = folder.parent / "keys"
    keys.write_text(KEY)
    with serving(folder, folder.parent / "log", MLA_API_KEYS_FILE=str(keys)) as address:
        yield address


def fetch(address: str) -> Any:
    asked = urllib.request.Request(f"{address}model", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked) as reply:
        return json.load(reply)


def open_with_key(browser: Any, address: str, path: str, faults: list[str], **options: Any) -> Any:
    """Open a page in a context of its own, and give the key that it asks for."""
    page = browser.new_context(**options).new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address}{path}")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("#content > *:not(button)")
    page.wait_for_load_state("networkidle")
    return page


def test_every_number_is_that_of_the_model(browser: Any, told_address: str, axe: str) -> None:
    faults: list[str] = []
    page = open_with_key(browser, told_address, "model", faults, viewport={"width": 1280, "height": 900})
    model = fetch(told_address)
    metrics = model["metrics"]
    tiles = [tile.inner_text().split("\n", 1) for tile in page.locator(".tiles > div").all()]
    floor = math.floor(1000 * metrics["intervals"]["full"]["accuracy"][0]) / 10
    assert tiles[0] == ["500 of 500", f"right, with all inputs (at least {floor} %, 95 % sure)"]
    assert tiles[1] == ["93.2 %", "right, with half of the inputs missing"]
    assert tiles[2][0] == "2.6 points"
    assert tiles[3][0] == "95.5 %"
    assert "(9 in 10 are promised). A shortlist has 1.2 labels on average" in tiles[3][1]

    rows = page.locator(".combinations > li:not(.ticks)")
    combinations = {
        name: own for name, own in metrics["conditions"].items() if name.split("+")[0] in model["modalities"]
    }
    assert rows.count() == len(combinations) == 63
    page.locator("summary").click()
    assert page.locator("summary").inner_text().startswith("53 more combinations, from ")
    before, seen = 1.0, set()
    for row in rows.all():
        chips = row.locator(".chip").all()
        names = [name for name in KINDS if name.replace("_", " ").capitalize() in [chip.inner_text() for chip in chips]]
        condition = "+".join(names)
        seen.add(condition)
        accuracy = combinations[condition]["calibrated"]["accuracy"]
        assert accuracy <= before
        before = accuracy
        count = metrics["condition_rows"][condition]
        assert row.locator("b").inner_text() == (f"{count} of {count}" if accuracy == 1 else percent(accuracy))
        assert row.locator("small").count() == (condition == "text")
        low, high = metrics["intervals"][condition]["accuracy"]
        assert row.locator(".value .unseen").text_content() == f", likely {percent(low)} to {percent(high)}"
        track, point, band = (row.locator(each).bounding_box() for each in (".track", ".point", ".band"))
        scale = page.locator(".ticks").first.inner_text().split("%")[0]
        start = float(scale) / 100
        assert f"The axis starts at {scale.strip()} %" in page.inner_text(".halves")
        at = track["x"] + track["width"] * (accuracy - start) / (1 - start)
        assert point["x"] + point["width"] / 2 == pytest.approx(at, abs=0.6)
        assert band["width"] - 8 == pytest.approx(track["width"] * (high - low) / (1 - start), abs=0.6)
    assert seen == set(combinations)

    facts = page.locator("dl").inner_text()
    assert "2,000 for training, 400 to tune, 500 to test" in facts
    assert "1 January 2026, with mla_serve 0.1.0" in facts
    assert model["sha256"][:12] in facts
    data = page.locator("dd", has_text="Two")
    assert data.locator("p").all_inner_texts() == ["Two", "All of it, with a table, is in the model card."]
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="all of this as JSON").click()
    assert json.loads(Path(downloaded.value.path()).read_text()) == model
    assert page.locator(".page-head p").first.inner_text() == "For tests, <script>document.hacked=1</script>."
    assert page.locator(".limits li").count() == 3
    assert page.locator(".limits a").evaluate_all("all => all.map(each => each.href)") == ["https://example.org/"]
    assert page.evaluate("document.hacked === undefined")
    check_axe(page, axe)
    for width in (390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        check_axe(page, axe)
    assert page.locator("nav.pages a").evaluate_all("all => Math.min(...all.map(each => each.offsetHeight))") >= 44
    page.emulate_media(color_scheme="dark")
    check_axe(page, axe)
    assert faults == []
    page.context.close()


def check_axe(page: Any, axe: str) -> None:
    page.evaluate(axe)
    found = page.evaluate(
        "axe.run().then(result => result.violations.map(each => [each.id, each.nodes.map(node => node.html)]))"
    )
    assert found == []


def test_the_report_has_its_styles_and_none_of_it_runs(browser: Any, told_address: str, axe: str) -> None:
    faults: list[str] = []
    page = open_with_key(browser, told_address, "report", faults)
    frame = page.frame_locator("iframe.report")
    frame.locator("#seen").wait_for()
    style = "element => { const own = getComputedStyle(element); return [own.color, own.marginLeft]; }"
    assert frame.locator("#seen").evaluate(style) == ["rgb(1, 2, 3)", "7px"]
    assert page.locator("iframe.report").bounding_box()["height"] >= 1500
    assert frame.get_by_text("run").get_attribute("href") is None
    assert frame.get_by_text("away").get_attribute("target") == "_blank"
    frame.get_by_text("run").click()
    frame.get_by_role("button", name="send").click()
    page.wait_for_timeout(1500)  # longer than the refresh that the report asks for
    assert frame.locator("#seen").inner_text() == "measured"
    assert page.url == f"{told_address}report"
    assert page.evaluate("document.hacked === undefined && frames[0].document.hacked === undefined")
    ignored: list[str] = []
    page.on("console", lambda message: ignored.append(message.text) if "print()" in message.text else None)
    page.get_by_role("button", name="Print").click()
    assert ignored == []  # such as: the document is sandboxed
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Save").click()
    assert Path(downloaded.value.path()).read_text() == HOSTILE
    page.goto(f"{told_address}card")
    page.get_by_text("A card.").wait_for()
    assert page.locator("th").all_inner_texts() == ["a", "<b>"]
    check_axe(page, axe)
    assert faults == []
    page.context.close()


def test_what_a_bundle_lacks_is_said(browser: Any, tiny_address: str, axe: str) -> None:
    page = browser.new_context().new_page()
    for path, said in (("model", "This was not measured"), ("report", "has no report"), ("card", "has no model card")):
        page.goto(f"{tiny_address}{path}")
        page.get_by_text(said).wait_for()
        assert page.locator('nav.pages a[href="report"]').is_visible()
        check_axe(page, axe)
    page.get_by_role("link", name="About this model").click()
    page.get_by_text("Nothing was written down").wait_for()
    assert page.url == f"{tiny_address}model"
    page.go_back()
    page.get_by_role("link", name="Try it").click()
    page.wait_for_selector(".card[data-modality]")
    page.context.close()


SCORES = {
    "labels": {"micro_f1": 0.457, "fnr": 0.2728, "ece": 0.0297, "set_size": 8.653, "set_fnr": 0.0806},
    "number": {"mae": 16.72, "r2": 0.461, "coverage": 0.884, "width": 77.24},
}
FIGURES = {
    "labels": [
        ("45.7 %", "44.0 % to 47.6 %"),
        ("72.7 %", "found"),
        ("45.7 %", "half"),
        ("3.0 points", "how often the label is right"),
        ("91.9 %", "A shortlist has 8.7 labels"),
    ],
    "number": [
        ("16.7 EUR", "15 EUR to 18.2 EUR"),
        ("16.7 EUR", "half"),
        ("46.1 %", "explained"),
        ("88.4 %", "77.2 EUR wide"),
    ],
}
TARGETS = {
    "labels": {"labels": [{"label": "a", "threshold": 0.5}, {"label": "b", "threshold": 0.5}]},
    "number": {"number": {"column": "price", "unit": "EUR", "log": False, "decimals": 0, "low": 1, "high": 9}},
}
LIKELY = {"labels": {"micro_f1": [0.44, 0.476]}, "number": {"mae": [15.0, 18.2]}}


@pytest.mark.parametrize("task", SCORES)
def test_labels_and_numbers_have_figures_of_their_own(browser: Any, tiny_address: str, task: str) -> None:
    page = browser.new_context().new_page()
    with urllib.request.urlopen(f"{tiny_address}model") as reply:
        model = json.load(reply)
    conditions = ["full", "missing50", "image", "image+audio"]
    measures = {name: {"calibrated": SCORES[task]} for name in conditions}
    metrics = {"split": "val", "rows": 300, "asked_coverage": 0.9, "conditions": measures}
    metrics["intervals"] = dict.fromkeys(conditions, LIKELY[task])
    model |= {"task": task, "metrics": metrics, **TARGETS[task]}
    page.route(
        re.compile(r"/model$"),
        lambda route: route.fulfill(json=model) if route.request.resource_type == "fetch" else route.continue_(),
    )
    page.goto(f"{tiny_address}model")
    page.wait_for_selector(".tiles")
    found = [tile.inner_text().replace("\xa0", " ").split("\n", 1) for tile in page.locator(".tiles > div").all()]
    assert [(figure, part in meaning) for (figure, meaning), (_, part) in zip(found, FIGURES[task], strict=True)] == [
        (figure, True) for figure, _ in FIGURES[task]
    ]
    assert (
        page.locator(".combinations > li b").all_inner_texts() == [FIGURES[task][0][0].replace(" EUR", "\xa0EUR")] * 2
    )
    assert "300 validation rows" in page.inner_text(".halves")
    page.context.close()


def test_a_model_that_was_fitted_again_says_when_and_on_which_rows_it_was_measured(
    browser: Any, tiny_address: str
) -> None:
    page = browser.new_context().new_page()
    with urllib.request.urlopen(f"{tiny_address}model") as reply:
        model = json.load(reply)
    again = {"date": "2026-02-03T04:05:06Z", "rows": 1200, "split": "test", "mla_serve": "0.2.0"}
    conditions = ["full", "missing50", *("+".join(names) for names in subsets(list(model["modalities"])))]
    scores = {name: {"calibrated": {"accuracy": 0.75}} for name in conditions}
    counts = dict.fromkeys(conditions, 1100)
    metrics = {"split": "test", "rows": 1200, "conditions": scores, "condition_rows": counts, "fitted": True}
    model |= {"trained": "2025-11-23T13:58:10Z", "fitted_again": again, "metrics": metrics}
    page.route(
        re.compile(r"/model$"),
        lambda route: route.fulfill(json=model) if route.request.resource_type == "fetch" else route.continue_(),
    )
    page.goto(f"{tiny_address}model")
    page.wait_for_selector("dl")
    facts = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert facts["Made"] == f"23 November 2025, with mla_serve {model['versions']['trained']['mla_serve']}"
    assert facts["Fitted again"] == "3 February 2026, with mla_serve 0.2.0, to 1,200 rows"
    assert "Measured on the 1,200 rows that it was fitted to: expect less of others." in page.inner_text(".halves")
    page.goto(tiny_address)
    page.get_by_role("textbox").first.fill("seven")
    page.get_by_text("75.0 % of 1,100 rows that it was fitted to").wait_for()
    page.context.close()
