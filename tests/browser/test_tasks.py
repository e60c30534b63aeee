"""Labels and numbers on the page: what is answered, what each input says by itself, and the promise of the coverage."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mla_serve.decimals import percent
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
    if name == "labels":
        page.get_by_role("button", name="Find a label").click()
        page.locator(".label-table tbody tr").nth(len(LABELS) - 1).wait_for()
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []


def rewrite(page: Any, path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change what the service replies."""

    def handle(route: Any) -> None:
        content = route.fetch().json()
        route.fulfill(json=content | change(content))

    page.route(f"**/{path}", handle)


def with_record(page: Any, scores: dict[str, float]) -> None:
    """Put the record of both inputs, and of the text alone, into GET /model, and open the page again."""
    conditions = {names: {"calibrated": scores} for names in ("image+text", "text")}
    rows = {"image+text": 1204, "text": 1204}
    metrics = {
        "split": "test",
        "asked_coverage": 0.9,
        "conditions": conditions,
        "condition_rows": rows,
        "intervals": {"image+text": {"mae": [13_904.0, 15_720.0]}},
    }
    rewrite(page, "model", lambda _: {"metrics": metrics})
    page.reload()
    page.wait_for_load_state("networkidle")


def test_answered_labels_stand_out_and_the_others_of_the_shortlist_are_marked(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    answer = fill(page)
    assert answer["labels"]
    assert page.locator(".tags .answered").all_inner_texts() == answer["labels"][:12]
    perhaps = [each for each in answer["prediction_set"]["labels"] if each not in answer["labels"]]
    shown = [re.sub("^perhaps\\s", "", text) for text in page.locator(".tags .perhaps").all_inner_texts()]
    assert shown == [f"{each}?" for each in perhaps][:6]
    others = len(LABELS) - len(answer["labels"]) - len(perhaps)
    said = page.locator(".counts").inner_text()
    more = f", perhaps {len(perhaps)} more" if perhaps else ""
    assert re.match(rf"{len(answer['labels'])} appl(y|ies){more}\.", said)
    assert (f"The other {others} are unlikely." in said) == (others > 1)
    size = len(answer["prediction_set"]["labels"])
    assert page.locator(".promised").inner_text() == f"Shortlist: {size} of {len(LABELS)}"
    assert "holds 9 in 10 of the labels that apply" in page.locator(".condition").inner_text()
    assert "Finds which of 34 labels apply, such as drama, crime and <b>news</b>" in page.locator("#lede").inner_text()


def test_the_table_tells_threshold_and_what_each_input_says_of_every_label(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    answer = fill(page)
    rows = page.locator(".label-table tbody tr")
    shown = answer["probabilities"][: rows.count()]
    kept = {*answer["labels"], *answer["prediction_set"]["labels"]}
    assert rows.count() == min(12, max(6, len(kept) + 2))
    assert page.locator(".label-table .name").all_inner_texts() == [each["label"] for each in shown]
    heads = page.locator(".label-table thead .own").all_inner_texts()
    assert [" ".join(head.split()) for head in heads] == ["by image", "by text"]
    for at, each in enumerate(shown):
        row = rows.nth(at)
        mark = row.locator(".threshold").evaluate("mark => parseFloat(mark.style.left)")
        assert mark == pytest.approx(100 * each["threshold"], abs=0.01)
        filled = row.locator(".fill").evaluate("fill => parseFloat(fill.style.width)")
        assert filled == pytest.approx(100 * each["probability"], abs=0.01)
        assert (filled >= mark) == each["answered"] == ("best" in row.get_attribute("class"))
        assert ("in-set" in row.get_attribute("class")) == (each["label"] in answer["prediction_set"]["labels"])
        assert row.locator("td.value").inner_text() == percent(each["probability"])
        for own, cell in zip(answer["modalities"].values(), row.locator("td.own").all(), strict=True):
            assert own["probabilities"][at]["label"] == each["label"]
            assert cell.get_attribute("title") == percent(own["probabilities"][at]["probability"])
            whole = round(100 * own["probabilities"][at]["probability"])
            assert cell.inner_text().split()[0] == (str(whole) if whole else "–")
    left = len(LABELS) - len(shown)
    said = page.locator(".labels-body > .hint").inner_text()
    assert said == f"{left} more, each at most {percent(shown[-1]['probability'])}. Find a label"


def test_a_label_among_many_is_found_by_its_name(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    fill(page)
    with page.expect_response("**/predict") as reply:
        page.get_by_role("button", name="Find a label").click()
    assert len(reply.value.json()["probabilities"]) == len(LABELS)
    rows = page.locator(".label-table tbody tr")
    page.wait_for_function(f"() => document.querySelectorAll('.label-table tbody tr').length === {len(LABELS)}")
    search = page.get_by_role("searchbox", name="Find a label")
    assert search.evaluate("search => search === document.activeElement")
    search.fill("GENRE_2")
    assert rows.count() == 11
    search.fill("none of them")
    assert page.locator(".labels-body > .hint").inner_text() == "No label has this in its name Show fewer"
    page.get_by_role("button", name="Show fewer").click()
    assert 6 <= rows.count() <= 12


def test_each_input_says_its_own_labels_and_what_is_left_without_it(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    answer = fill(page)
    for name, own in answer["modalities"].items():
        row = page.locator(f"[data-opinion={name}]")
        said = sorted((each["label"] for each in own["labels"]), key=lambda label: label in answer["labels"])
        assert row.locator(".says strong").all_inner_texts() == (said[:3] or ["no label"])
        lost = [each for each in answer["labels"] if each not in own["without"]]
        gained = [each for each in own["without"] if each not in answer["labels"]]
        words = row.locator(".hint").inner_text()
        assert words.startswith("Without it")
        assert ("would not be given" in words) == bool(lost)
        assert all(each in words for each in [*lost[:3], *gained[:3]])
        assert ("the same" in words) == (not lost and not gained)


@pytest.mark.parametrize(
    ("own", "marks", "verdict"),
    [
        ({"image": ["drama"], "text": ["crime"]}, ["in part", "in part"], "They add up; none says all of it alone."),
        ({"image": ["drama", "crime"], "text": []}, ["agrees"], "Image says all of it alone."),
        ({"image": ["drama", "crime"], "text": ["crime", "drama"]}, ["agrees", "agrees"], "Both agree"),
        ({"image": ["drama"], "text": ["genre_1"]}, ["in part", "differs"], "they disagree: text says otherwise."),
    ],
)
def test_labels_of_inputs_are_compared_with_the_answer(
    opened: Callable[..., Any], own: dict[str, list[str]], marks: list[str], verdict: str
) -> None:
    page = opened("labels")

    def change(content: dict[str, Any]) -> dict[str, Any]:
        said = {
            name: each | {"labels": [{"label": label, "probability": 0.9} for label in own[name]]}
            for name, each in content["modalities"].items()
        }
        return {"labels": ["drama", "crime"], "modalities": said}

    rewrite(page, "predict", change)
    fill(page)
    assert page.locator(".opinions .mark").all_inner_texts() == marks
    assert verdict in page.locator(".verdict").inner_text()


def test_the_record_of_labels_is_how_many_are_right_and_how_many_are_found(opened: Callable[..., Any]) -> None:
    page = opened("labels")
    with_record(page, {"precision": 0.85, "fnr": 0.17, "micro_f1": 0.84})
    fill(page)
    assert page.locator(".record").inner_text() == (
        "With image and text 85.0 % of the labels given were right, and it gave 83.0 % of the labels that apply,"
        " on 1,204 test rows. Report"
    )


def test_of_many_labels_the_first_are_shown_and_the_others_counted(opened: Callable[..., Any]) -> None:
    page = opened("labels")

    def change(content: dict[str, Any]) -> dict[str, Any]:
        inside = content["prediction_set"] | {"labels": [f"l{at}" for at in range(1200)]}
        return {"labels": [f"l{at}" for at in range(1100)], "prediction_set": inside}

    rewrite(page, "predict", change)
    fill(page)
    assert (page.locator(".tags .answered").count(), page.locator(".tags .perhaps").count()) == (12, 6)
    assert page.locator(".tags .few").all_inner_texts() == ["and 1,088 more", "and 94 more"]
    assert page.locator(".counts").inner_text().startswith("1,100 apply, perhaps 100 more.")
    assert page.locator(".promised").inner_text() == "Shortlist: 1,200 of 34"


def test_no_label_may_be_answered(opened: Callable[..., Any]) -> None:
    page = opened("labels")

    def change(content: dict[str, Any]) -> dict[str, Any]:
        none = [each | {"probability": 0.01, "answered": False} for each in content["probabilities"]]
        return {
            "labels": [],
            "probabilities": none,
            "prediction_set": content["prediction_set"] | {"labels": []},
        }

    rewrite(page, "predict", change)
    fill(page)
    assert page.locator(".tags").inner_text() == "No label"
    assert page.locator(".counts").inner_text() == "None is likely enough."
    assert page.locator(".promised").inner_text() == "Shortlist: 0 of 34"


def test_a_number_stands_in_its_unit_with_its_range(opened: Callable[..., Any]) -> None:
    page = opened("number")
    answer = fill(page)
    (value,) = numbers_in(page.locator(".label").inner_text())
    assert value == pytest.approx(answer["value"], abs=answer["deviation"] / 10)
    assert page.locator(".label").inner_text().endswith("USD")
    said = page.locator(".headline .range").inner_text()
    assert said.endswith(", 9 times in 10")
    low, high, *_ = numbers_in(said)
    assert low == pytest.approx(answer["interval"]["low"], abs=answer["deviation"] / 10)
    assert high == pytest.approx(answer["interval"]["high"], abs=answer["deviation"] / 10)
    assert "Estimates price in USD" in page.locator("#lede").inner_text()


def test_the_forest_plot_places_every_value_and_range_on_one_axis(opened: Callable[..., Any]) -> None:
    page = opened("number")
    answer = fill(page)
    edges = """box => { const { left, right, height } = box.getBoundingClientRect(); return [left, right, height]; }"""

    def box(selector: str) -> list[float]:
        found: list[float] = page.locator(f".forest {selector}").evaluate(edges)
        return found

    widest, wide = max(answer["modalities"].items(), key=lambda each: each[1]["deviation"] / each[1]["value"])
    to_both_sides = 1.6449 * math.asinh(wide["deviation"] / wide["value"])
    start, end, _ = box(f"[data-row={widest}] .line")  # says where the axis lies; everything else has to fit
    assert end - start > 20

    def place(value: float) -> float:
        return start + (end - start) * (math.log(value / wide["value"]) / (2 * to_both_sides) + 0.5)

    axis = box(".plot >> nth=0")
    known = box(".known")
    assert known[0] == pytest.approx(max(axis[0], place(22_000)), abs=1)
    assert known[1] == pytest.approx(min(axis[1], place(5_858_000)), abs=1)
    assert page.locator(".known.cut-low").count() == (place(22_000) < axis[0])
    for part in (".diamond", ".band"):
        left, right, _ = box(part)
        assert left == pytest.approx(place(answer["interval"]["low"]), abs=1)
        assert right == pytest.approx(place(answer["interval"]["high"]), abs=1)
    left, right, _ = box(".point")
    assert (left + right) / 2 == pytest.approx(place(answer["value"]), abs=1)
    assert page.locator(".training .value").inner_text().replace("\u00a0", " ") == "22,000 to 5,858,000 USD"
    for name, own in answer["modalities"].items():
        left, right, height = box(f"[data-row={name}] .square")
        assert (left + right) / 2 == pytest.approx(place(own["value"]), abs=1)
        assert height == pytest.approx(max(5, 22 * math.sqrt(own["weight"])), abs=0.1)  # the area is the weight
        reach = 1.6449 * math.asinh(own["deviation"] / own["value"])
        left, right, _ = box(f"[data-row={name}] .line")
        assert left == pytest.approx(place(own["value"] * math.exp(-reach)), abs=1)
        assert right == pytest.approx(place(own["value"] * math.exp(reach)), abs=1)
        (shown, *_) = numbers_in(page.locator(f"[data-row={name}] .value").inner_text())
        assert shown == pytest.approx(own["value"], abs=own["deviation"] / 10)
        inside = abs(math.log(answer["value"] / own["value"])) <= reach
        assert page.locator(f"[data-opinion={name}] .mark").inner_text() == ("agrees" if inside else "differs")


def test_an_input_that_was_not_sent_has_an_empty_row(opened: Callable[..., Any]) -> None:
    page = opened("number")
    with page.expect_response("**/predict"):
        page.get_by_role("textbox", name="Text").fill("acht")
    page.wait_for_selector(".answer:not(.stale):not(.empty)")
    assert page.locator(".forest [data-row=image]").inner_text().split("\n")[-1] == "not sent"
    assert page.locator(".forest [data-row=image] .square").count() == 0


def test_a_value_has_the_digits_that_its_deviation_allows(opened: Callable[..., Any]) -> None:
    page = opened("sum")
    answer = fill(page)
    assert 0.05 < answer["deviation"] < 9
    assert page.locator(".known").count() == 0
    (value,) = numbers_in(page.locator(".label").inner_text())
    assert value == round(answer["value"], 1)
    assert numbers_in(page.locator(".headline .range").inner_text())[:2] == [
        round(answer["interval"][end], 1) for end in ("low", "high")
    ]
    for name, own in answer["modalities"].items():
        (said, _) = numbers_in(page.locator(f"[data-opinion={name}] .says").inner_text())
        assert said == round(own["value"], 1)


def test_tiny_numbers_keep_their_digits(opened: Callable[..., Any]) -> None:
    page = opened("mass")
    answer = fill(page)
    shown = page.locator(".label").inner_text().replace("−", "-").removeprefix("about ")
    assert float(shown.split()[0]) == pytest.approx(answer["value"], abs=answer["deviation"] / 10)
    assert "0.000000" not in page.locator("main").inner_text()
    assert "1.00e−9 to 6.00e−9" in page.locator(".training .value").inner_text()


def test_huge_numbers_are_written_with_an_exponent(opened: Callable[..., Any]) -> None:
    page = opened("number")
    inside = {"low": 1.5e19, "high": 2.5e19}
    rewrite(page, "predict", lambda content: {"value": 1.9424e19, "interval": content["interval"] | inside})
    fill(page)
    assert page.locator(".label").inner_text().replace("\u00a0", " ") == "1.94e19 USD"
    assert page.locator(".headline .range b").all_inner_texts() == ["1.50e19\u00a0USD", "2.50e19\u00a0USD"]
    assert page.evaluate(CUT) == []


def test_influence_is_how_far_an_input_pulls_the_number_in_its_unit(opened: Callable[..., Any]) -> None:
    page = opened("number")
    answer = fill(page)
    for name, own in answer["modalities"].items():
        said = page.locator(f"[data-opinion={name}] .hint").inner_text()
        (size, other) = numbers_in(said)
        assert size == pytest.approx(abs(own["influence"]), rel=0.06, abs=0.06)
        assert other == pytest.approx(answer["value"] - own["influence"], abs=answer["deviation"] / 10)
        assert ("Pulls it down" if own["influence"] < 0 else "Pulls it up") in said
        assert said.count("USD") == 2


def test_the_record_of_a_number_is_how_far_off_it_was(opened: Callable[..., Any]) -> None:
    page = opened("number")
    with_record(page, {"mae": 14_812.4, "coverage": 0.912, "r2": 0.8})
    fill(page)
    assert page.locator(".record").inner_text().replace("\u00a0", " ") == (
        "With image and text it was off by 14,800 USD (likely 13,900 to 15,700) on average on 1,204 test rows;"
        " the range for 9 times in 10 held the true value in 91.2 %. Report"
    )


def test_a_range_that_covers_most_of_training_is_too_wide_to_use(opened: Callable[..., Any]) -> None:
    page = opened("number")
    value, ends = {"value": 350_000.0}, {"low": 22_000 * 1.05, "high": 5_858_000.0}
    rewrite(page, "predict", lambda content: {**value, "interval": content["interval"] | ends})
    fill(page)
    covered = math.log(ends["high"] / ends["low"]) / math.log(5_858_000 / 22_000)
    assert page.locator(".warning").inner_text() == (
        f"Too wide to use: it covers {100 * covered:.1f} % of the values seen in training."
    )
    assert page.locator(".label").inner_text().startswith("about ")
    value["value"] = 9e6
    ends |= {"low": 8e6, "high": 1e7}
    page.get_by_role("textbox", name="Text").fill("neun")
    page.wait_for_function("() => document.querySelector('.warning').textContent.includes('above all that were seen')")
    assert "Too wide" not in page.locator(".warning").inner_text()


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ({"low": None, "high": None}, "it may be any value"),
        ({"low": None, "high": 400_000.0}, "at most 4"),
        ({"low": 300_000.0, "high": None}, "at least 3"),
    ],
)
def test_an_end_that_is_not_known_is_said(opened: Callable[..., Any], ends: dict[str, Any], text: str) -> None:
    page = opened("number")
    rewrite(page, "predict", lambda content: {"interval": content["interval"] | ends})
    fill(page)
    assert page.locator(".headline .range").inner_text().startswith(text)
    unknown = "one end of it is not known" if ends["low"] or ends["high"] else "it has no known end"
    assert unknown in page.locator(".warning").inner_text()
    for end in ("low", "high"):
        assert page.locator(f".diamond.open-{end}").count() == (ends[end] is None)
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", ["labels", "number"])
def test_what_the_coverage_rests_on_is_said(opened: Callable[..., Any], name: str, pooled: bool) -> None:
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
    page.locator(".numbers summary").click()
    said = page.locator(".numbers > .hint").inner_text()
    assert f"from {promise['rows']} validation rows" in said
    assert ("also with other inputs" in said) == pooled
