"""Labels and numbers on the page: what is answered, what each input says by itself, and the promise of the coverage."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mla_serve.tasks import Labels, Number, Task
from tests.browser.harness import draw, open_page, serving
from tests.browser.test_labels import CUT, SIZES
from tests.browser.test_playground import SEVEN
from tests.conftest import rising_intervals

PATIENCE_MS = 20_000
MODALITIES = {"image": "image", "text": "text"}
LABELS = ("drama", "crime", "<b>news</b>", "Donaudampfschifffahrtsgesellschaft", *(f"genre_{at}" for at in range(30)))
TASKS: dict[str, Task] = {
    "labels": Labels(LABELS, tuple(0.4 + 0.005 * at for at in range(len(LABELS)))),
    "number": Number("price", "USD", log=True, mean=12.5, deviation=0.8, decimals=0, low=22_000, high=5_858_000),
    "sum": Number("sum", mean=13.0, deviation=0.4, decimals=0),  # its range is not known
    "mass": Number("mass", "kg", mean=3e-9, deviation=1e-9, decimals=11, low=1e-9, high=6e-9),
}


@pytest.fixture(scope="module")
def addresses(
    playwright: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], str]]:
    """Serve a model of each task when it is first asked for."""
    folder = tmp_path_factory.mktemp("tasks")
    with contextlib.ExitStack() as stack:
        started: dict[str, str] = {}

        def address(name: str) -> str:
            if name not in started:
                task = TASKS[name]
                bundle = make_bundle(
                    folder / name, MODALITIES, task=task, intervals=rising_intervals(task, list(MODALITIES))
                )
                started[name] = stack.enter_context(serving(bundle, folder / f"{name}.log"))
            return started[name]

        yield address


@pytest.fixture(params=SIZES, ids=str)
def size(request: Any) -> tuple[int, int]:
    chosen: tuple[int, int] = request.param
    return chosen


@pytest.fixture
def opened(browser: Any, addresses: Callable[[str], str]) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page of a task and fills it in; fails when the page itself logs an error."""
    pages: list[Any] = []
    failures: list[str] = []

    def open_task(name: str, size: tuple[int, int] = SIZES[0], **options: Any) -> Any:
        page = open_page(browser, addresses(name), viewport={"width": size[0], "height": size[1]}, **options)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)
        pages.append(page)
        return page

    yield open_task
    for page in pages:
        page.context.close()
    assert not failures


def fill(page: Any) -> dict[str, Any]:
    """Type a word and draw; returns the last answer."""
    page.get_by_role("textbox", name="Text").fill("seven")
    page.locator("[data-opinion=text]").wait_for()
    draw(page, SEVEN)
    page.locator("[data-opinion=image]").wait_for()
    page.wait_for_timeout(300)
    with page.expect_response("**/predict") as reply:
        page.get_by_role("textbox", name="Text").fill("sieben")
    page.wait_for_selector(".answer:not(.stale):not(.empty)")
    content: dict[str, Any] = reply.value.json()
    return content


def numbers_in(text: str) -> list[float]:
    """Read the numbers of a text such as "312,000 to 531,000 USD"."""
    return [float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*\.?\d*", text)]


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_cut_off_on_any_screen(opened: Callable[..., Any], name: str, size: tuple[int, int]) -> None:
    page = opened(name, size)
    fill(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", TASKS)
def test_everybody_can_read_it(opened: Callable[..., Any], name: str, scheme: str, axe: str) -> None:
    page = opened(name, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    page.evaluate(axe)
    fill(page)
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []


def test_answered_labels_stand_out_and_thresholds_are_marked(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    answer = fill(page)
    assert answer["labels"]
    assert page.locator(".tags .answered").all_inner_texts() == answer["labels"][:30]
    perhaps = [each for each in answer["prediction_set"]["labels"] if each not in answer["labels"]]
    assert page.locator(".tags .perhaps").count() == min(len(perhaps), 10)
    rows = page.locator(".bars li")
    assert page.locator(".bars .name").all_inner_texts() == [each["label"] for each in answer["probabilities"]]
    assert page.locator(".bars .best").count() == sum(each["answered"] for each in answer["probabilities"])
    for at, each in enumerate(answer["probabilities"]):
        mark = rows.nth(at).locator(".threshold").evaluate("mark => parseFloat(mark.style.left)")
        assert mark == pytest.approx(100 * each["threshold"], abs=0.01)
        filled = rows.nth(at).locator(".fill").evaluate("fill => parseFloat(fill.style.width)")
        assert filled == pytest.approx(100 * each["probability"], abs=0.01)
        assert (filled >= mark) == each["answered"]
    assert page.locator(".rest").inner_text() == f"{len(LABELS) - 20} more, less probable"
    assert "34 labels (drama, crime, <b>news</b>" in page.locator("#lede").inner_text()


def test_each_input_says_its_own_labels(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    answer = fill(page)
    for name, own in answer["modalities"].items():
        said = page.locator(f"[data-opinion={name}] .says").inner_text()
        expected = [each["label"] for each in own["labels"]][:10] or ["no label"]
        assert page.locator(f"[data-opinion={name}] .says strong").all_inner_texts() == expected
        assert said.startswith("says ")


def test_of_many_labels_the_first_are_shown_and_the_others_counted(opened: Callable[..., Any]) -> None:
    page = opened("labels")

    def predict(route: Any) -> None:
        content = route.fetch().json()
        inside = content["prediction_set"] | {"labels": [f"l{at}" for at in range(1200)]}
        route.fulfill(json=content | {"labels": [f"l{at}" for at in range(1100)], "prediction_set": inside})

    page.route("**/predict", predict)
    fill(page)
    assert (page.locator(".tags .answered").count(), page.locator(".tags .perhaps").count()) == (30, 10)
    assert page.locator(".tags .few").all_inner_texts() == ["and 1,070 more", "and 90 more"]
    assert "1,100 of 34 labels, perhaps 100 more" in page.locator(".verdict").inner_text()
    assert page.locator(".promised").inner_text().endswith("l9 and 1,190 more")


def test_no_label_may_be_answered(opened: Callable[..., Any]) -> None:
    page = opened("labels")

    def predict(route: Any) -> None:
        content = route.fetch().json()
        none = [each | {"probability": 0.01, "answered": False} for each in content["probabilities"]]
        route.fulfill(
            json=content
            | {"labels": [], "probabilities": none, "prediction_set": content["prediction_set"] | {"labels": []}}
        )

    page.route("**/predict", predict)
    fill(page)
    assert page.locator(".tags").inner_text() == "No label"
    assert page.locator(".verdict").inner_text().startswith("0 of 34 labels.")
    assert page.locator(".promised").inner_text() == "Shortlist: no label"


def test_a_number_stands_in_its_unit_on_an_axis_with_its_interval(opened: Callable[..., Any]) -> None:
    page = opened("number")
    answer = fill(page)
    (value,) = numbers_in(page.locator(".label").inner_text())
    assert value == pytest.approx(answer["value"], abs=answer["deviation"] / 10)
    assert page.locator(".label").inner_text().endswith("USD")
    low, high = numbers_in(page.locator(".headline .probability").inner_text())
    assert low == pytest.approx(answer["interval"]["low"], abs=answer["deviation"] / 10)
    assert high == pytest.approx(answer["interval"]["high"], abs=answer["deviation"] / 10)
    places = page.evaluate(
        """() => [...document.querySelectorAll(".rows li")].map(row => [".span", ".point", ".known"].map(part => {
            const box = row.querySelector(part).getBoundingClientRect();
            return [box.left, box.right];
        }))"""
    )
    assert len(places) == 3  # all together, and each of the two inputs
    for (left, right), (point_left, point_right), _ in places:
        assert left <= (point_left + point_right) / 2 <= right
    together = places[0][0]
    grey = places[0][2]
    scale = (grey[1] - grey[0]) / 5.5842  # log(5,858,000 / 22,000)
    for end, place in ((answer["interval"]["low"], together[0]), (answer["interval"]["high"], together[1])):
        assert place == pytest.approx(grey[0] + scale * math.log(end / 22_000), abs=1)
    assert "22,000 to 5,858,000" in page.locator(".estimates .hint").inner_text()
    assert "estimates price in USD" in page.locator("#lede").inner_text()


def test_a_value_has_the_digits_that_its_deviation_allows(opened: Callable[..., Any]) -> None:
    page = opened("sum")
    answer = fill(page)
    assert 0.05 < answer["deviation"] < 9
    assert page.locator(".known").count() == 0
    assert page.locator(".estimates .hint").inner_text() == ""
    (value,) = numbers_in(page.locator(".label").inner_text())
    assert value == round(answer["value"], 1)
    assert numbers_in(page.locator(".headline .probability").inner_text()) == [
        round(answer["interval"][end], 1) for end in ("low", "high")
    ]
    for name, own in answer["modalities"].items():
        (said, _) = numbers_in(page.locator(f"[data-opinion={name}] .says").inner_text())
        assert said == round(own["value"], 1)


def test_tiny_numbers_keep_their_digits(opened: Callable[..., Any]) -> None:
    page = opened("mass")
    answer = fill(page)
    shown = page.locator(".label").inner_text().replace("−", "-")
    assert float(shown.split()[0]) == pytest.approx(answer["value"], abs=answer["deviation"] / 10)
    assert "0.000000" not in page.locator("main").inner_text()
    assert "1.00e−9 to 6.00e−9" in page.locator(".estimates .hint").inner_text()


def test_influence_is_in_the_unit_of_the_number(opened: Callable[..., Any]) -> None:
    page = opened("number")
    answer = fill(page)
    for name, own in answer["modalities"].items():
        facts = page.locator(f"[data-facts={name}]").text_content().split("moves")[1]
        (shown, *_) = numbers_in(facts)
        assert shown == pytest.approx(abs(own["influence"]), rel=0.06, abs=0.06)
        assert ("−" in facts) == (own["influence"] < 0)
        assert facts.startswith(" the value by")
        assert "USD" in facts


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ({"low": None, "high": None}, "any value"),
        ({"low": None, "high": 400_000.0}, "up to 4"),
        ({"low": 300_000.0, "high": None}, "3"),
    ],
)
def test_an_end_that_is_not_known_is_said(opened: Callable[..., Any], ends: dict[str, Any], text: str) -> None:
    page = opened("number")

    def predict(route: Any) -> None:
        content = route.fetch().json()
        route.fulfill(json=content | {"interval": content["interval"] | ends})

    page.route("**/predict", predict)
    fill(page)
    said = page.locator(".headline .probability").inner_text()
    assert said.startswith(text)
    assert said.endswith("and more") == (ends["high"] is None and ends["low"] is not None)
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_the_condition_of_the_coverage_is_said(opened: Callable[..., Any], name: str, pooled: bool) -> None:
    page = opened(name)
    answer = fill(page) if pooled else None
    if not pooled:
        with page.expect_response("**/predict") as reply:
            page.get_by_role("textbox", name="Text").fill("acht")
        page.wait_for_selector(".answer:not(.stale):not(.empty)")
        answer = reply.value.json()
    assert answer is not None
    promise = answer.get("prediction_set") or answer["interval"]
    assert promise["pooled"] == pooled
    said = page.locator(".numbers > .hint").text_content()
    assert "on average for rows like those of validation, with inputs missing at random" in said
    assert f"from {promise['rows']} validation rows" in said
    assert ("also with other inputs" in said) == pooled
