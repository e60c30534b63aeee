"""What a visitor does with answers: copy them, share a link, go back to an earlier try, score a table or a folder."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest

from mla_serve.fusion.intervals import Intervals
from mla_serve.tasks import Classes
from tests.browser.harness import draw, serving
from tests.browser.test_playground import PATIENCE_MS, SEVEN, card, png, wav
from tests.conftest import CLASSES, TASKS, rising_intervals

MODALITIES = {
    "image": "image",
    "rear_camera": "image",
    "audio": "audio",
    "text": "text",
    "vector": "vector",
    "columns": "columns",
}
ROWS = 250
PIECE = 16  # samples that the service takes at once
WORDS = ("red", "=green", 'blue or, "so"', "two\nlines", "naïve", "")
# Keep the last form that the page sends, and the answer to it.
WATCH = """() => { const real = fetch; window.fetch = async (url, options) => {
  const reply = await real(url, options);
  if (url === 'predict' && reply.ok) { window.sent = options.body; window.reply = await reply.clone().json(); }
  return reply; } }"""
SENT = """async () => Object.fromEntries(await Promise.all([...sent].map(async ([name, part]) =>
  [name, typeof part === 'string' ? part : Array.from(new Uint8Array(await part.arrayBuffer())).join()])))"""


@pytest.fixture(scope="module")
def address(
    playwright: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve a model with a modality of every kind, which takes few samples at once."""
    folder = tmp_path_factory.mktemp("work")
    intervals: Intervals = rising_intervals(Classes(CLASSES), list(MODALITIES))
    metrics = {
        "split": "test",
        "conditions": {"text": {"calibrated": {"accuracy": 0.716}}},
        "condition_rows": {"text": 500},
    }
    bundle = make_bundle(folder / "shop", MODALITIES, intervals=intervals, metrics=metrics)
    with serving(bundle, folder / "log", MLA_MAX_BATCH_ITEMS=str(PIECE)) as opened:
        yield opened


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page in a new context; fails when a page logs an error."""
    contexts = []
    failures: list[str] = []

    def opened(fragment: str = "", address: str = address, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True, **options)
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda said: failures.append(said.text) if "Content Security" in said.text else None)
        page.add_init_script(f"({WATCH})()")
        page.goto(address + fragment)
        page.wait_for_selector(".card")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not failures


def wait_for_answer(page: Any, *names: str) -> dict[str, Any]:
    """Wait until the answer rests on exactly these modalities, in their order; returns the reply."""
    page.wait_for_function(
        "names => window.reply && Object.keys(reply.modalities).join() === names && !document.querySelector('.answer.stale')",
        arg=",".join(names),
    )
    return dict(page.evaluate("reply"))


def clipboard(page: Any, button: str) -> str:
    """Press a button that copies, and return what it copied."""
    page.evaluate("navigator.clipboard.writeText('')")
    page.get_by_role("button", name=button).click()
    page.wait_for_function("async () => await navigator.clipboard.readText() !== ''")
    return str(page.evaluate("navigator.clipboard.readText()")).replace("\r\n", "\n")


def fill_all(page: Any) -> dict[str, Any]:
    """Fill in every card, and choose another rule and shortlist; returns the reply."""
    draw(page, SEVEN)
    card(page, "rear_camera").locator("input[type=file]").set_input_files(png())
    card(page, "audio").locator("input[type=file]").set_input_files(wav())
    card(page, "text").get_by_role("textbox").fill("über #&=%\n二")
    card(page, "vector").get_by_role("textbox").fill("0.5, -1, 2e3 4")
    card(page, "columns").get_by_label("price").fill("12.5")
    card(page, "columns").get_by_label("colour").select_option("green")
    page.get_by_text("Numbers and rule").click()
    page.get_by_label("Fusion rule").select_option("paper")
    page.wait_for_function("() => window.sent?.get('fusion') === 'paper' && sent.get('columns')?.includes('green')")
    return wait_for_answer(page, *MODALITIES)


def test_a_link_holds_every_input_and_the_options(visit: Callable[..., Any], address: str) -> None:
    page = visit()
    before = fill_all(page)
    sent = page.evaluate(SENT)
    link = clipboard(page, "Copy link")
    assert link.startswith(f"{address}#model=")
    opened = visit(link.removeprefix(address))
    opened.wait_for_function("() => window.sent?.get('fusion') === 'paper'")
    assert wait_for_answer(opened, *MODALITIES) == before
    assert opened.evaluate(SENT) == sent
    assert opened.locator(".link-note").is_hidden()


def test_the_address_leads_to_what_is_on_the_page_or_to_nothing(visit: Callable[..., Any], address: str) -> None:
    """Whatever the answer to other inputs is."""
    fragment = urlencode({"model": "0123456789ab", "name": "shop", "in.text": "red", "end": ""})

    def open_link() -> None:
        page.evaluate("fragment => { window.reply = null; location.hash = fragment; }", fragment)
        wait_for_answer(page, "text")
        assert page.evaluate("location.hash") == f"#{fragment}"

    page = visit()
    text = card(page, "text").get_by_role("textbox")
    open_link()
    page.route("**/predict", lambda route: route.fulfill(status=422, json={"title": "No"}), times=1)
    text.fill("blue")
    page.locator(".notice", has_text="No.").wait_for()
    assert page.evaluate("location.hash") == ""
    open_link()
    text.fill("")
    page.locator(".answer.empty").wait_for()
    assert page.evaluate("location.hash") == ""
    open_link()
    page.get_by_text("Numbers and rule").click()
    page.get_by_label("Fusion rule").select_option("paper")
    assert page.evaluate("location.hash") == ""


def test_a_link_is_read_before_anybody_can_type(visit: Callable[..., Any], address: str) -> None:
    """Where it cannot be read since the service does not answer, that is said."""
    link = f"{address}#" + urlencode({"model": "0123456789ab", "name": "shop", "in.text": "red", "end": ""})
    held: list[Any] = []
    page = visit()
    page.route("**/web/work/link.js", lambda route: held.append(route))
    page.goto("about:blank")
    with page.expect_request("**/web/work/link.js"):
        page.goto(link)
    assert page.locator("#page").is_hidden()
    held.pop().abort()
    page.get_by_role("button", name="Try again").wait_for()
    assert "does not answer" in page.locator("#lede").inner_text()
    page.unroute("**/web/work/link.js")
    page.get_by_role("button", name="Try again").click()
    wait_for_answer(page, "text")
    assert card(page, "text").get_by_role("textbox").input_value() == "red"
    page = visit()
    page.route("**/web/work/link.js", lambda route: route.abort())
    page.evaluate("link => { location.href = link; }", link)
    page.locator(".notice", has_text="does not answer").wait_for()


def test_a_model_that_was_replaced_is_said_and_the_page_can_be_loaded_again(visit: Callable[..., Any]) -> None:
    """Nothing of the old model is told beside an answer of the new one."""
    page = visit()
    page.route("**/model", lambda route: route.fulfill(json=route.fetch().json() | {"sha256": "0" * 64}))
    page.reload()
    card(page, "text").get_by_role("textbox").fill("red car")
    page.locator(".notice", has_text="The model was replaced").wait_for()
    assert page.locator(".details").is_hidden()
    assert page.get_by_role("button", name="Copy answer").is_hidden()
    page.unroute("**/model")
    page.get_by_role("button", name="Load again").click()
    page.wait_for_selector(".answer:not(.empty):not(.stale) .details")
    reply = wait_for_answer(page, "text")
    assert card(page, "text").get_by_role("textbox").input_value() == "red car"
    assert page.locator(".notice").is_hidden()
    assert page.locator(".link-note").is_hidden()
    assert reply["model"]["sha256"][:12] in clipboard(page, "Copy answer")


def test_what_does_not_fit_into_a_link_is_named(visit: Callable[..., Any], address: str) -> None:
    page = visit()
    card(page, "text").get_by_role("textbox").fill("red")
    card(page, "rear_camera").locator("input[type=file]").set_input_files(png((600, 600)))
    wait_for_answer(page, "rear_camera", "text")
    link = clipboard(page, "Copy link")
    said = page.locator(".copy-note").inner_text()
    size = len(png((600, 600))["buffer"])
    assert f"Rear camera is too large for a link: {-(-size // 1024)} kB" in said
    opened = visit(link.removeprefix(address))
    wait_for_answer(opened, "text")
    assert (
        f"Rear camera was too large for the link ({-(-size // 1024)} kB)" in opened.locator(".link-note").inner_text()
    )


def test_a_broken_or_foreign_link_says_so(visit: Callable[..., Any], address: str) -> None:
    known = {
        "model": httpx.get(f"{address}model", headers={"Accept": "application/json"}).json()["sha256"][:12],
        "name": "shop",
    }
    red = {"in.text": "red"}
    cases = [
        ({**known, **red, "name": "digits", "end": ""}, "made with another model, “digits”"),
        ({**known, **red, "model": "0123456789ab", "end": ""}, "The model has changed"),
        ({**known, **red, "in.smell": "<b>x</b>", "end": ""}, "no input “smell”"),
        ({**known, **red, "in.image": "image/png,%%%", "end": ""}, "Image: this part of the link is damaged"),
        ({**known, **red, "in.columns": "[", "end": ""}, "Columns: this part of the link is damaged"),
        ({**known, **red, "in.columns": '{"weight": 3}', "end": ""}, "1 of the columns in the link is not among"),
        ({**known, **red, "fusion": "magic", "coverage": "7", "end": ""}, "does not offer “fusion magic”"),
        ({**known, **red, "in.audio": "audio/wav,UklG"}, "cut off on its way. “audio”"),
    ]
    page = visit()
    for fields, said in cases:
        page.evaluate("fragment => { window.reply = null; location.hash = fragment; }", urlencode(fields))
        wait_for_answer(page, "text")
        assert said in page.locator(".link-note").inner_text(), fields
        assert card(page, "text").get_by_role("textbox").input_value() == "red"
    page.evaluate("location.hash = 'answer'")  # is no link
    assert card(page, "text").get_by_role("textbox").input_value() == "red"


def test_an_answer_is_copied_as_text(visit: Callable[..., Any], address: str) -> None:
    page = visit()
    card(page, "text").get_by_role("textbox").fill("seven  blue\ncars")
    reply = wait_for_answer(page, "text")
    text = clipboard(page, "Copy answer")
    percent = f"{100 * reply['probability']:.1f} %"
    assert f"shop answers: {reply['label']} ({percent})" in text
    assert "  Text: seven blue cars" in text
    assert "Not sent: Image, Rear camera, Audio, Vector and Columns" in text
    assert "71.6 %" in text
    assert "500 test rows" in text
    assert f"Model shop, made 2026-01-01, {reply['model']['sha256'][:12]}" in text
    # It is as sure as the page is.
    assert " ".join(page.locator(".verdict").inner_text().split()) in text
    labels = reply["prediction_set"]["labels"]
    assert len(labels) > 1
    assert f": {', '.join(labels)}. The shortlist holds the right answer 9 in 10 times" in text
    assert "Fusion rule" not in text
    page.get_by_text("Numbers and rule").click()
    page.get_by_label("Fusion rule").select_option("paper")
    page.wait_for_function("() => window.reply.fusion === 'paper' && !document.querySelector('.answer.stale')")
    assert "Fusion rule: paper, not the usual calibrated" in clipboard(page, "Copy answer")
    # Where the browser refuses, the text is shown and selected.
    page.evaluate(
        "() => { navigator.clipboard.write = () => Promise.reject(new DOMException('', 'NotAllowedError')); }"
    )
    page.get_by_role("button", name="Copy answer").click()
    page.get_by_label("Text to copy").wait_for()
    assert str(page.evaluate("getSelection().toString()")).startswith("shop answers:")


def test_the_last_tries_can_be_restored(visit: Callable[..., Any]) -> None:
    page = visit()
    text = card(page, "text").get_by_role("textbox")
    text.press_sequentially("red car")
    wait_for_answer(page, "text")
    page.locator(".try").wait_for()  # at once, so that nothing moves later
    first = page.evaluate("new Promise(done => setTimeout(() => done(reply), 1800))")
    card(page, "rear_camera").locator("input[type=file]").set_input_files(png())
    wait_for_answer(page, "rear_camera", "text")
    page.locator(".try").nth(1).wait_for()
    assert page.locator(".try").count() == 2  # the letters in between are none
    assert first["label"] in page.locator(".try").nth(1).inner_text()
    assert f"{100 * first['probability']:.1f} %" in page.locator(".try").nth(1).inner_text()
    page.locator(".try").nth(1).click()
    assert wait_for_answer(page, "text") == first
    page.wait_for_timeout(1500)
    assert page.locator(".try").count() == 2
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    page.get_by_role("button", name="Clear the last tries").click()
    assert page.locator(".try").count() == 0
    assert not page.get_by_role("button", name="Clear the last tries").is_visible()
    assert page.locator(".tries").bounding_box()["height"] < 120


def test_no_more_than_eight_tries_are_kept(visit: Callable[..., Any]) -> None:
    page = visit()
    kept = page.evaluate(
        """async () => {
          const { triesSection } = await import(new URL('web/work/history.js', location));
          const section = document.createElement('section');
          window.setTimeout = action => action();
          const tries = triesSection(section, { modalities: { text: { kind: 'text' } }, fusion: {} }, { short: reply => [reply.label, ''], restore() {} });
          for (let i = 0; i < 12; i++) tries.answered({ text: `t${i}` }, {}, { label: `l${i}`, modalities: {} });
          tries.answered({ text: 't11' }, { top_k: 9 }, { label: 'l11', modalities: {} }); // more labels are listed
          return [...section.querySelectorAll('.try strong')].map(each => each.textContent);
        }"""
    )
    assert kept == [f"l{i}" for i in range(11, 3, -1)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a folder with a table of 250 rows, some faulty, and the pictures that it names."""
    folder = tmp_path / "goods"
    (folder / "pictures").mkdir(parents=True)
    for number in range(5):
        (folder / "pictures" / f"{number}.png").write_bytes(png(seed=number)["buffer"])
    rows = []
    for row in range(ROWS):
        image = "" if row % 7 else f"pictures/{row % 5}.png"
        rows.append(
            [
                f"r{row}",
                WORDS[row % len(WORDS)],
                image,
                1.5 * row if row % 3 else "",
                "red",
                "1; 2 3,4" if row % 4 == 0 else "",
            ]
        )
    rows[12][5] = "1, 2"  # too few numbers: the service refuses the row
    rows[21][2] = "pictures/none.png"  # is not there
    rows[30][3] = "cheap"  # is no number
    rows[40][1:] = ["", "", "", "", ""]  # nothing to answer
    rows[50].append("surplus")
    with (folder / "goods.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(
            [["label", "Text", "image", "columns.price", "colour", "vector"], *rows]
        )
    return folder


def asked(folder: Path, row: list[str]) -> dict[str, Any]:
    """Make the sample of a row as a program would."""
    sample: dict[str, Any] = {"text": row[1], "columns": {"price": row[3], "colour": row[4]}}
    if row[2]:
        sample["image"] = base64.b64encode((folder / row[2]).read_bytes()).decode()
    if row[5]:
        sample["vector"] = [float(number) for number in row[5].replace(";", " ").replace(",", " ").split()]
    return sample


def answers_of_api(address: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at in range(0, len(samples), PIECE):
        body = {"samples": samples[at : at + PIECE], "coverage": 0.9}
        found += httpx.post(f"{address}predict/batch", json=body).raise_for_status().json()["results"]
    return found


def download(page: Any) -> str:
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download the answers").click()
    return Path(caught.value.path()).read_bytes().decode("utf-8-sig")


def test_a_table_is_scored_as_the_api_does(visit: Callable[..., Any], address: str, table: Path) -> None:
    page = visit()
    page.locator("#many input").nth(1).set_input_files(table)
    page.get_by_role("button", name=f"Score {ROWS} rows").wait_for()
    chosen = {
        name: page.locator(f"[data-match={name}] select").evaluate("e => e.selectedOptions[0].textContent")
        for name in MODALITIES
    }
    assert chosen == {
        "image": "image", "rear_camera": "not in this table", "audio": "not in this table", "text": "Text", "vector": "vector", "columns": "2 of 5 columns, by name",
    }  # fmt: skip
    assert "Not used: label." in page.locator("#many").inner_text()
    assert "Row 22 cannot be scored. Image: no file “pictures/none.png”" in page.locator(".advice").inner_text()
    page.get_by_role("button", name=f"Score {ROWS} rows").click()
    text = download(page)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=";"))
    with (table / "goods.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *given = csv.reader(file, delimiter=";")
    assert list(rows[0]) == ["own_label", *header[1:], "label", "probability", "prediction_set", "missing", "problem"]
    assert [[row["own_label"], *(row[name] for name in header[1:])] for row in rows] == [row[:6] for row in given]
    local = {21: "no file", 40: "All inputs of this row are empty", 50: "This row has 7 cells"}
    sent = [row for row in range(ROWS) if row not in local]
    answers = dict(zip(sent, answers_of_api(address, [asked(table, given[row]) for row in sent]), strict=True))
    refused = [row for row, answer in answers.items() if "problem" in answer]
    assert refused == [12, 30]
    for at, row in enumerate(rows):
        if at in local or at in refused:
            expected = local.get(at) or answers[at]["problem"]["detail"]
            assert expected in row["problem"]
            assert row["label"] == row["probability"] == ""
            continue
        answer = answers[at]
        assert float(row["probability"]) == answer["probability"], at
        assert row["label"] == answer["label"]
        assert json.loads(row["prediction_set"]) == answer["prediction_set"]["labels"]
        assert json.loads(row["missing"]) == answer["missing"]
        assert row["problem"] == ""
    assert page.locator(".results tbody tr").count() == 100
    assert f"{ROWS - 5} of {ROWS} rows answered, 5 with a problem." in page.locator(".table-status").inner_text()
    assert "150 more rows are in the download" in page.locator("#many").inner_text()
    assert f"{100 * answers[0]['probability']:.1f} %" in page.locator(".results tbody tr").first.inner_text()


def test_a_folder_of_pictures_is_a_row_each(visit: Callable[..., Any], address: str, table: Path) -> None:
    (table / "pictures" / "notes.xyz").write_text("no picture")
    (table / "pictures" / "broken.png").write_text("no picture")
    page = visit()
    page.locator("#many input").nth(1).set_input_files(table / "pictures")
    page.get_by_role("button", name="Score 6 rows").wait_for()
    assert "1 file that this model does not read" in page.locator("#many").inner_text()
    page.locator("[data-match=image] select").select_option("")
    page.locator("[data-match=rear_camera] select").select_option("file")
    page.get_by_role("button", name="Score 6 rows").click()
    rows = list(csv.DictReader(io.StringIO(download(page), newline="")))
    assert [row["file"] for row in rows] == [*(f"pictures/{number}.png" for number in range(5)), "pictures/broken.png"]
    files = [{"rear_camera": base64.b64encode((table / row["file"]).read_bytes()).decode()} for row in rows]
    for row, answer in zip(rows, answers_of_api(address, files), strict=True):
        assert row["label"] == answer.get("label", "")
        assert float(row["probability"] or 0) == answer.get("probability", 0)
        assert bool(row["problem"]) == ("problem" in answer)


def test_a_busy_service_is_asked_again_and_a_run_can_be_stopped(visit: Callable[..., Any], tmp_path: Path) -> None:
    lines = [{"text": f"red {row}"} for row in range(3 * PIECE)]
    lines[5]["text"] = "\ud800"  # half a letter: the service refuses the whole piece
    path = tmp_path / "lines.jsonl"
    path.write_text("\n".join([json.dumps(line) for line in lines] + ["{broken"]), encoding="ascii")
    seen: list[int] = []

    def slowly(route: Any) -> None:
        seen.append(len(json.loads(route.request.post_data)["samples"]))
        if len(seen) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"title": "Busy", "detail": "Come again."})
        elif seen.count(PIECE) < 3:  # the third is never answered
            route.continue_()

    page = visit()
    page.route("**/predict/batch", slowly)
    page.locator("#many input").first.set_input_files(path)
    page.get_by_role("button", name=f"Score {len(lines) + 1} rows").click()
    page.get_by_text("Come again.").wait_for()
    page.get_by_text(f"{PIECE + 1} of {len(lines) + 1} rows, 2 with a problem").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("You stopped it.").wait_for()
    assert seen[:3] == [PIECE, PIECE, PIECE // 2]  # again, then in halves
    assert page.locator(".results tbody tr").nth(PIECE + 1).inner_text().count("not scored") == 1
    page.unroute("**/predict/batch")
    page.get_by_role("button", name=f"Score the other {2 * PIECE}").click()
    page.get_by_text(f"{len(lines) - 1} of {len(lines) + 1} rows answered, 2 with a problem.").wait_for()
    rows = list(csv.DictReader(io.StringIO(download(page), newline="")))
    assert [at for at, row in enumerate(rows) if row["problem"]] == [5, len(lines)]
    assert "no JSON object" in rows[-1]["problem"]


def test_what_is_scored_after_a_stop_has_the_settings_of_the_rest(visit: Callable[..., Any], tmp_path: Path) -> None:
    """The model is replaced meanwhile, which is said."""
    path = tmp_path / "words.csv"
    path.write_text("text\n" + "".join(f"red {row}\n" for row in range(2 * PIECE)))
    sent: list[dict[str, Any]] = []

    def handle(route: Any) -> None:
        sent.append(json.loads(route.request.post_data))
        if len(sent) == 1:
            route.continue_()
        elif len(sent) == 3:  # the second is never answered
            reply = route.fetch().json()
            for result in reply["results"]:
                result["model"]["sha256"] = "0" * 64
            route.fulfill(json=reply)

    page = visit()
    page.route("**/predict/batch", handle)
    card(page, "text").get_by_role("textbox").fill("red")
    wait_for_answer(page, "text")
    page.locator("#many input").first.set_input_files(path)
    page.get_by_role("button", name=f"Score {2 * PIECE} rows").click()
    page.get_by_text(f"{PIECE} of {2 * PIECE} rows").wait_for()
    page.get_by_role("button", name="Cancel").click()
    again = page.get_by_role("button", name=f"Score the other {PIECE}")
    again.wait_for()
    page.get_by_text("Numbers and rule").click()
    page.get_by_label("Fusion rule").select_option("paper")  # which has no shortlist
    again.click()
    page.get_by_text(f"{2 * PIECE} of {2 * PIECE} rows answered.").wait_for()
    said = page.locator(".table-status").inner_text()
    assert "The model was replaced meanwhile" in said
    assert "the settings that they began with" in said
    assert [{**body, "samples": len(body["samples"])} for body in sent] == 3 * [
        {"samples": PIECE, "coverage": 0.9, "top_k": 1}
    ]
    rows = list(csv.DictReader(io.StringIO(download(page), newline="")))
    assert list(rows[0]) == ["text", "label", "probability", "prediction_set", "missing", "problem"]
    for row in rows:
        assert set(json.loads(row["prediction_set"])) <= set(CLASSES)
        assert json.loads(row["missing"]) == [name for name in MODALITIES if name != "text"]


def test_a_dropped_table_is_scored_and_a_dropped_picture_fills_its_card(visit: Callable[..., Any]) -> None:
    drop = """([name, type, bytes]) => { const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
      document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true })); }"""
    page = visit()
    page.evaluate(drop, ["words.tsv", "", list(b"id\twords\n1\tred\n2\tblue\n")])
    page.get_by_text("No column is called").wait_for()
    assert page.get_by_role("button", name="Score 2 rows").is_disabled()
    page.locator("[data-match=text] select").select_option("words")
    page.get_by_role("button", name="Score 2 rows").click()
    page.get_by_text("2 of 2 rows answered.").wait_for()
    page.evaluate(drop, ["photo.png", "image/png", list(png()["buffer"])])
    wait_for_answer(page, "image")
    page.evaluate(
        """() => {
          const entry = { isDirectory: true, createReader: () => ({ readEntries: (done, failed) => failed(new DOMException('', 'NotReadableError')) }) };
          DataTransferItem.prototype.webkitGetAsEntry = () => entry;
        }"""
    )
    page.evaluate(drop, ["folder", "", [1]])
    page.get_by_text("A file in it cannot be read.").wait_for()
    page.evaluate("() => (DataTransferItem.prototype.webkitGetAsEntry = () => null)")
    for content, said in (
        (b'a,b\n1,"x', "line 2 is never closed"),
        (b"a,a\n1,2", "Two columns"),
        (b"text\n", "no rows"),
    ):
        page.evaluate(drop, ["bad.csv", "text/csv", list(content)])
        page.get_by_text(said).wait_for()


def test_csv_is_read_as_python_writes_it(visit: Callable[..., Any]) -> None:
    """In pieces of any length, and a text that a spreadsheet would run is written as a text."""
    generator = np.random.default_rng(3)
    letters = np.array([*'ab",;\n\r\té二𝄞 '])
    table = [
        ["a", "b", "c"],
        *(["".join(generator.choice(letters, generator.integers(0, 6))) + "." for _ in range(3)] for _ in range(60)),
    ]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(table)
    page = visit()
    read = """async ([text, size]) => { const { csvReader } = await import(new URL('web/work/csv.js', location));
      const reader = csvReader(','); const rows = [];
      for (let at = 0; at < text.length; at += size) rows.push(...reader.push(text.slice(at, at + size)));
      return [...rows, ...reader.end()]; }"""
    for size in (1, 2, 3, 7, 10_000):
        assert page.evaluate(read, [text.getvalue(), size]) == table, size
    written = page.evaluate(
        "async table => { const { csvLine } = await import(new URL('web/work/csv.js', location)); return table.map(row => csvLine(row)).join(''); }",
        table,
    )
    assert list(csv.reader(io.StringIO(written, newline=""))) == table
    harmless = page.evaluate(
        "async () => { const { harmless } = await import(new URL('web/work/csv.js', location)); return ['=1+1', '-2.5', '-a', '@x', 'a=b', 3].map(harmless); }"
    )
    assert harmless == ["'=1+1", "-2.5", "'-a", "'@x", "a=b", 3]


def test_what_becomes_csv_only_here_does_not_become_a_formula(visit: Callable[..., Any]) -> None:
    """The cells of a CSV stay as they are."""
    page = visit()
    files = {
        "a.csv": b"=n,text\n=1+1,-2.5\n",
        "a.jsonl": b'{"=n": "=1+1", "text": -2.5}\n',
        "b.jsonl": '{"text": "\xe9"}'.encode("latin-1"),
    }
    read = page.evaluate(
        """async files => Object.fromEntries(await Promise.all(Object.entries(files).map(async ([path, bytes]) => {
          const { tableOf } = await import(new URL('web/work/table.js', location));
          const { resultLines } = await import(new URL('web/work/results.js', location));
          const table = await tableOf([{ path, file: new File([Uint8Array.from(bytes)], path) }], () => {});
          return [path, [table.encoding, ...resultLines(table, ['label'], [{ cells: ['red'] }])]];
        })))""",
        {path: list(content) for path, content in files.items()},
    )
    assert read["a.csv"] == ["utf-8", "=n,text,label,problem\r\n", "=1+1,-2.5,red,\r\n"]
    assert read["a.jsonl"] == ["utf-8", "'=n,text,label,problem\r\n", "'=1+1,-2.5,red,\r\n"]
    assert read["b.jsonl"] == ["windows-1252", "text,label,problem\r\n", "é,red,\r\n"]


@pytest.mark.parametrize("task", ["labels", "number"])
def test_a_table_of_another_task(
    visit: Callable[..., Any], make_bundle: Callable[..., Path], tmp_path: Path, task: str
) -> None:
    bundle = make_bundle(
        tmp_path / task, {"text": "text"}, task=TASKS[task], intervals=rising_intervals(TASKS[task], ["text"])
    )
    path = tmp_path / "words.csv"
    path.write_text("value,text\n" + "".join(f"{row},{'red car '[row % 8 :]}{row}\n" for row in range(20)))
    with serving(bundle, tmp_path / "log") as address:
        page = visit(address=address)
        page.locator("#many input").first.set_input_files(path)
        page.get_by_role("button", name="Score 20 rows").click()
        rows = list(csv.DictReader(io.StringIO(download(page), newline="")))
        answers = answers_of_api(address, [{"text": row["text"]} for row in rows])
        own = ["own_value" if task == "number" else "value", "text"]
        if task == "labels":
            assert list(rows[0]) == [*own, "labels", "prediction_set", "missing", "problem"]
            assert [json.loads(row["labels"]) for row in rows] == [answer["labels"] for answer in answers]
            sets = [answer["prediction_set"]["labels"] for answer in answers]
            assert [json.loads(row["prediction_set"]) for row in rows] == sets
        else:
            assert list(rows[0]) == [*own, "value", "deviation", "interval_low", "interval_high", "missing", "problem"]
            for name in ("value", "deviation"):
                assert [float(row[name]) for row in rows] == [answer[name] for answer in answers]
            for name in ("low", "high"):
                assert [float(row[f"interval_{name}"]) for row in rows] == [each["interval"][name] for each in answers]
            shown = page.locator(".results tbody tr").first.locator(".of-value").inner_text()
            assert float(shown.replace(",", "")) == pytest.approx(answers[0]["value"], abs=answers[0]["deviation"] / 10)
        assert page.locator(".results .problem").count() == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_nothing(visit: Callable[..., Any], axe: str, table: Path, scheme: str, width: int) -> None:
    fragment = "#" + urlencode({"model": "0123456789ab", "name": "shop", "in.text": "red", "end": ""})
    page = visit(fragment, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate(axe)
    wait_for_answer(page, "text")
    page.wait_for_timeout(1500)
    card(page, "text").get_by_role("textbox").fill("blue car")
    page.locator(".try").nth(1).wait_for()
    page.locator("#many input").nth(1).set_input_files(table)
    page.get_by_role("button", name=f"Score {ROWS} rows").wait_for()
    findings = []
    for state in ("matched", "scored"):
        if state == "scored":
            page.get_by_role("button", name=f"Score {ROWS} rows").click()
            page.get_by_role("button", name="Download the answers").wait_for()
        for found in page.evaluate(
            "axe.run({ include: ['.link-note', '.foot', '#tries', '#many'].map(part => [part]) })"
        )["violations"]:
            findings.append((state, found["id"], [node["html"][:200] for node in found["nodes"]]))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert findings == []


def test_a_dropped_folder_is_scored_and_the_keyboard_goes_on(visit: Callable[..., Any], table: Path) -> None:
    """Files of the system in it are left out."""
    (table / ".DS_Store").write_bytes(b"x")
    page = visit()
    drag = {"items": [], "files": [str(table)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": drag})
    start = page.get_by_role("button", name=f"Score {ROWS} rows")
    start.focus()
    page.keyboard.press("Enter")
    page.get_by_text(f"{ROWS - 5} of {ROWS} rows answered").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Download the answers"


def test_a_service_that_is_gone_is_named(visit: Callable[..., Any], tmp_path: Path) -> None:
    """What makes links and scores tables is fetched with the first of them."""
    (tmp_path / "words.csv").write_text("text\nred\n")
    page = visit()
    card(page, "text").get_by_role("textbox").fill("red")
    wait_for_answer(page, "text")
    page.route("**/*", lambda route: route.abort())
    page.get_by_role("button", name="Copy link").click()
    page.locator(".copy-note", has_text="The service does not answer").wait_for()
    page.locator("#many input").first.set_input_files(tmp_path / "words.csv")
    page.locator(".table-status", has_text="The service does not answer").wait_for()
    page.unroute("**/*")
    assert clipboard(page, "Copy link").count("in.text=red") == 1


def test_a_label_that_shows_nothing_is_named_in_the_table(visit: Callable[..., Any]) -> None:
    page = visit()
    cells = page.evaluate(
        """async () => { const { resultsTable } = await import(new URL('web/work/results.js', location));
          const table = { columns: ['text'], rows: [{ cells: ['a'] }, { cells: ['b'] }] };
          const [box] = resultsTable({}, table, ['label', 'prediction_set'], [{ cells: [' ', '[" ","wide_screen"]'] }]);
          return [...box.querySelectorAll('td')].map(each => each.textContent); }"""
    )
    assert cells == ["(blank)", "(blank), wide_screen", "a", "not scored", "b"]
