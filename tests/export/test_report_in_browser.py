"""The report as people see it: on a phone and a desk, light and dark, with everything open, and printed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mla_serve import palette
from mla_serve.bundle.predictor import Predictor
from mla_serve.evaluation.splits import SHOWN_RULES, score_split
from mla_serve.export import report
from mla_serve.export.report import gather, write_report
from tests.browser.conftest import axe, browser, playwright, spoken  # noqa: F401 (fixtures)
from tests.evaluation.rows import run_generated_rows
from tests.test_palette import contrast

PAGES = re.compile(rb"/Type\s*/Page\b(?!s)")
MOST_PAGES = 5
AXE = "axe.run().then(run => run.violations.map(each => [each.id, each.nodes[0].html]))"
SIZES = "all => [...new Set(all.map(each => getComputedStyle(each).fontSize))]"
BARS = """all => all.map(row => {
  const [bar, fill] = [".bar", ".fill"].map(name => row.querySelector(name).getBoundingClientRect().width);
  return [fill / bar, row.querySelector("td.main").textContent];
})"""
CHIPS = """all => all.map(each => {
  const style = getComputedStyle(each);
  return [each.textContent, style.backgroundColor, style.color];
})"""


@pytest.fixture(scope="module")
def address(task_predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the report of a task, of a model with a purpose and limits."""
    folder = tmp_path_factory.mktemp("report")
    run = run_generated_rows(task_predictor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SEVERITIES", (5,))
        results = gather(task_predictor, run)
    about = {
        "purpose": "Sorts **things**.",
        "limits": ["Others."],
        "data": "A [list](https://example.org).",
        "licence": "CC0",
    }
    manifest = task_predictor.bundle.manifest.model_copy(
        update={"metrics": score_split(task_predictor, run, 1, SHOWN_RULES)}
    )
    manifest = manifest.model_copy(update={"about": manifest.about.model_copy(update=about)})
    names = [*manifest.modalities]
    epochs = [{"epoch": number, "val": dict.fromkeys(("full", *names), 0.5)} for number in (1, 2)]
    write_report(folder, results, task_predictor, run, manifest, epochs, samples=True)
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:  # noqa: F811
    """Open the report; fails where it asks the network for something."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    page.context.close()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_everyone_can_read_it_on_a_phone_and_a_desk(page: Any, axe: str) -> None:  # noqa: F811
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page.add_script_tag(content=axe)
    for width, scheme in itertools.product((390, 1280), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(AXE) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.eval_on_selector_all("svg text", SIZES) == ["12px"]
        assert (
            page.eval_on_selector_all(
                ".plot", "all => Math.max(...all.map(each => each.getBoundingClientRect().right))"
            )
            <= width
        )


def test_bars_begin_at_one_left_edge_and_end_where_their_number_says(page: Any) -> None:
    edges = page.eval_on_selector_all(".sent .track", "all => all.map(each => each.getBoundingClientRect().left)")
    assert len(edges) > 3
    assert max(edges) - min(edges) < 1
    rows = page.eval_on_selector_all(".sent tbody tr", BARS)
    shares = [(bar, float(number.rstrip("\xa0%")) / 100) for bar, number in rows if number.endswith("%")]
    assert [bar for bar, _ in shares] == pytest.approx([share for _, share in shares], abs=0.002)


def test_each_modality_has_its_hue_and_can_be_read_on_it(page: Any) -> None:
    for number, scheme in enumerate(("light", "dark")):
        page.emulate_media(color_scheme=scheme)
        colours = {
            name: (_hex(ground), _hex(ink)) for name, ground, ink in page.eval_on_selector_all(".sent .chip", CHIPS)
        }
        hues = [pair[number] for pair in palette.hues()]
        assert [colours[name][0] for name in ("image", "audio", "text", "vector")] == hues[:4]
        assert min(contrast(*pair) for pair in colours.values()) >= 4.5


def _hex(colour: str) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])


def test_it_prints_on_a_few_pages_in_light_colours(page: Any, tmp_path: Path) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.locator("details:visible").count() == 0
    pages = len(PAGES.findall(page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)))
    assert 2 <= pages <= MOST_PAGES
