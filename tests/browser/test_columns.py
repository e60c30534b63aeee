"""The card for columns: typed inputs, what is missing, messages at the column, many columns, the code for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mla_serve.inputs import Column, ColumnsInput
from tests.browser.harness import ROOT, open_page, serving
from tests.browser.test_playground import PATIENCE_MS, card, wait_for_opinions, watch_requests
from tests.browser.test_snippets import SHOWN, shown

BRANDS = tuple(f"Brand {number}" for number in range(120))
FIRST = (
    Column("price", "number", low=4.5, high=320.0, middle=19.99, spread=40.0),
    Column("brand", "category", BRANDS),
    Column("colour", "category", ("red", "<b>green</b>", "blue")),
    Column("listed", "date", low=19_000.0, high=20_000.0, spread=300.0),
    Column("in stock", "yes_no"),
    Column("__proto__", "category", ("x", "y")),
    Column("constructor", "number", low=0.0, high=1.0, middle=0.25),
    Column('it\'s "Größe".', "number", low=-3.0, high=3.0),
)
MORE = (
    *(Column(f"measure {number}", "number", low=0.0, high=1.0, middle=0.5) for number in range(21)),
    Column("size", "number", low=1e9, high=2e9, middle=1.5e9),
)


@pytest.fixture(scope="module")
def address(
    playwright: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve a model of texts, and of thirty columns."""
    folder = tmp_path_factory.mktemp("columns")
    inputs = {"columns": ColumnsInput((*FIRST, *MORE))}
    bundle = make_bundle(
        folder / "shop", {"text": "text", "columns": "columns"}, inputs=inputs, golden_source="training rows"
    )
    with serving(bundle, folder / "log") as opened:
        yield opened


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = open_page(browser, address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.append(message.text) if "Content Security" in message.text else None)
    watch_requests(page)
    yield page
    page.context.close()
    assert not failures


def field(page: Any, column: str) -> Any:
    return card(page, "columns").get_by_label(column, exact=True)


def sent_cells(page: Any) -> Any:
    """Return the cells of the last form."""
    return json.loads(page.evaluate("() => sent.get('columns')"))


def wait_for_cells(page: Any, cells: dict[str, Any]) -> None:
    """Wait until these cells are sent, in any order."""
    page.wait_for_function(
        "expected => { const given = window.sent?.get('columns'); if (!given) return false;"
        " const cells = JSON.parse(given); const names = Object.keys(cells);"
        " return names.length === expected.length && expected.every(([name, cell]) => Object.hasOwn(cells, name) && cells[name] === cell); }",
        arg=list(map(list, cells.items())),
    )


def shown_cells(cells: dict[str, Any]) -> dict[str, Any]:
    """Return cells as the page keeps them: of a date the day."""
    return {name: cell[:10] if name == "listed" else cell for name, cell in cells.items()}


def note(page: Any, column: str) -> str:
    """Read what stands below a column's input."""
    described = field(page, column).get_attribute("aria-describedby")
    return str(page.locator(f"#{described}").inner_text())


def hint(page: Any) -> str:
    return str(card(page, "columns").locator(".tools .hint").inner_text())


def test_each_type_has_its_input_and_is_sent_as_it_is(page: Any) -> None:
    assert "Type or fill in columns" in page.locator("#lede").inner_text()
    assert "what is known" in hint(page)
    field(page, "price").fill("12.5")
    wait_for_opinions(page, "columns")
    wait_for_cells(page, {"price": 12.5})
    field(page, "brand").fill("Brand 7")
    field(page, "colour").select_option("<b>green</b>")
    field(page, "listed").fill("2023-06-01")
    field(page, "in stock").select_option("no")
    cells = {"price": 12.5, "brand": "Brand 7", "colour": "<b>green</b>", "listed": "2023-06-01", "in stock": False}
    wait_for_cells(page, cells)
    assert "5 of 30 filled in" in hint(page)
    field(page, "colour").select_option("")
    field(page, "price").fill("")
    wait_for_cells(page, {name: cells[name] for name in ("brand", "listed", "in stock")})


def test_names_of_objects_are_names_of_columns(page: Any) -> None:
    field(page, "__proto__").select_option("y")
    field(page, "constructor").fill("0.5")
    wait_for_cells(page, {"__proto__": "y", "constructor": 0.5})
    wait_for_opinions(page, "columns")


def test_the_values_of_training_are_shown(page: Any) -> None:
    assert note(page, "price") == "in training 4.5 to 320"
    assert note(page, "brand") == "120 values known"
    assert note(page, "colour") == ""
    assert field(page, "colour").locator("option").all_inner_texts() == ["not given", "red", "<b>green</b>", "blue"]
    suggestions = page.evaluate(
        "id => document.getElementById(id).options.length", field(page, "brand").get_attribute("list")
    )
    assert suggestions == 100
    places = {"4.5": 0, "162.25": 50, "320": 100, "500": 100, "1": 0}
    for text, place in places.items():
        field(page, "price").fill(text)
        assert card(page, "columns").locator("[data-column=price] .lies > span").evaluate(
            "mark => parseFloat(mark.style.left)"
        ) == pytest.approx(place)
    assert note(page, "price") == "less than any in training, from 4.5"
    field(page, "price").fill("500")
    assert note(page, "price") == "more than any in training, up to 320"
    field(page, "price").fill("50")
    assert note(page, "price") == "in training 4.5 to 320"
    field(page, "listed").fill("1999-01-01")
    assert note(page, "listed") == "earlier than any in training, from 2022-01-08"
    field(page, "listed").fill("2024-10-04")
    assert note(page, "listed") == "in training 2022-01-08 to 2024-10-04"
    wait_for_opinions(page, "columns")  # a value that training did not have is no error


def test_an_example_and_clear(page: Any) -> None:
    card(page, "columns").get_by_role("button", name="example").click()
    wait_for_opinions(page, "columns")
    assert field(page, "price").input_value() == "19.99"
    assert field(page, "brand").input_value() == "Brand 0"
    assert hint(page) == "All 30 filled in"
    assert card(page, "columns").get_by_role("button", name="Show all 30 (22 more filled in)").is_visible()
    page.get_by_role("button", name="Clear Columns").click()
    page.wait_for_selector(".answer.empty")
    assert field(page, "price").input_value() == ""


def test_a_sample_of_the_model_fills_the_cells(page: Any, address: str) -> None:
    samples = [sample["inputs"] for sample in httpx.get(f"{address}samples").json()]
    number = next(number for number, sample in enumerate(samples) if "size" in sample["columns"])
    page.locator(".chip").nth(number).click()
    wait_for_opinions(page, "text", "columns")
    wait_for_cells(page, shown_cells(samples[number]["columns"]))
    assert not card(page, "columns").get_by_role("alert").is_visible()  # a column called size is no size of a file


def test_a_value_that_training_did_not_have_is_kept(page: Any) -> None:
    cells = {"colour": "violet", "brand": "None of them", "in stock": False, "listed": "1999-12-31"}
    page.route("**/samples", lambda route: route.fulfill(json=[{"inputs": {"columns": cells}, "truth": None}]))
    page.reload()
    watch_requests(page)
    page.locator(".chip").first.click()
    wait_for_cells(page, cells)
    assert note(page, "colour") == "not among the 3 values seen in training"


def test_more_than_eight_columns_are_folded_away_and_found(page: Any) -> None:
    columns = card(page, "columns")
    visible = columns.locator(".cell:visible")
    assert visible.count() == 8
    columns.get_by_role("button", name="Show all 30").click()
    assert visible.count() == 30
    columns.get_by_role("button", name="Show fewer").click()
    columns.get_by_role("searchbox").fill("MEASURE 1")
    assert visible.count() == 11
    field(page, "measure 13").fill("1")
    wait_for_cells(page, {"measure 13": 1})
    columns.get_by_role("searchbox").fill("none of them")
    assert visible.count() == 0
    assert hint(page) == "No column has this in its name"
    columns.get_by_role("searchbox").fill("")
    assert visible.count() == 8
    assert columns.get_by_role("button", name="Show all 30 (1 more filled in)").is_visible()


def test_a_refused_cell_is_explained_and_marked(page: Any) -> None:
    detail = {"title": "An input cannot be used", "detail": "expected a number", "field": "columns.measure 20"}
    problem = {"status": 422, "content_type": "application/problem+json", "body": json.dumps(detail | {"status": 422})}
    page.route("**/predict", lambda route: route.fulfill(**problem), times=1)
    field(page, "price").fill("1")
    message = card(page, "columns").get_by_role("alert")
    message.wait_for()
    assert "Columns: measure 20: Expected a number." in message.inner_text()
    assert field(page, "measure 20").get_attribute("aria-invalid") == "true"
    assert field(page, "measure 20").is_visible()
    field(page, "price").fill("2")
    wait_for_opinions(page, "columns")
    assert not message.is_visible()
    assert field(page, "measure 20").get_attribute("aria-invalid") is None


def test_a_cell_that_is_no_number_is_not_sent(page: Any) -> None:
    field(page, "in stock").select_option("yes")
    field(page, "price").focus()
    page.keyboard.type("1e")
    card(page, "columns").get_by_role("alert").wait_for()
    assert (
        card(page, "columns").get_by_role("alert").inner_text()
        == "Columns: price: this is no number, so it is left out"
    )
    wait_for_cells(page, {"in stock": True})


def test_the_keyboard_reaches_every_visible_input(page: Any) -> None:
    page.get_by_role("searchbox").focus()
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('.cell')?.dataset.column"))
    assert {column.name for column in FIRST} <= reached


def test_the_command_and_the_program_answer_as_the_page_does(page: Any, tmp_path: Path) -> None:
    page.get_by_role("textbox", name="Text").fill("seven")
    field(page, "price").fill("12.5")
    field(page, "in stock").select_option("no")
    field(page, "__proto__").select_option("y")
    field(page, 'it\'s "Größe".').fill("-1")
    wait_for_opinions(page, "text", "columns")
    page.wait_for_timeout(400)
    expected = page.evaluate(SHOWN)
    for language in ("curl", "Python"):
        page.get_by_role("button", name=language).click()
        program = page.locator("pre").inner_text()
        command = ["bash", "-c", program] if language == "curl" else [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if language == "curl":
            answer = json.loads(done.stdout)
            assert shown(answer["label"], answer["probability"]) == expected
        else:
            label, _, probability = done.stdout.rpartition(" ")
            assert shown(label, float(probability)) == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser: Any, address: str, axe: str, scheme: str, width: int) -> None:
    page = open_page(
        browser, address, viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True
    )  # fmt: skip
    page.set_default_timeout(PATIENCE_MS)
    page.evaluate(axe)
    findings = []
    for state in ("empty", "filled", "marked", "off"):
        if state == "filled":
            card(page, "columns").get_by_role("button", name="example").click()
            wait_for_opinions(page, "columns")
            card(page, "columns").get_by_role("button", name="Show all 30").click()
        if state == "marked":
            field(page, "price").fill("")
            field(page, "price").focus()
            page.keyboard.type("1e")
            card(page, "columns").get_by_role("alert").wait_for()
        if state == "off":
            page.get_by_role("switch", name="Use Columns").click()
        for found in page.evaluate("axe.run()")["violations"]:
            findings.append((state, found["id"], [node["html"][:200] for node in found["nodes"]]))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
    assert findings == []
