"""The page with the API's documentation: its examples, its forms, the programs that it prints, keys, hostile texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.harness import ROOT, serving

KEY = "open-sesame-open-sesame"
PATIENCE_MS = 60_000
MOST_BYTES = 80_000  # of the page with all its files

pytestmark = pytest.mark.slow


@pytest.fixture
def docs(browser: Any, tiny_address: str) -> Iterator[Any]:
    """Open /docs; fails when it logs an error or asks for anything from elsewhere."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.append(message.text) if "Content Security" in message.text else None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{tiny_address}docs")
    page.wait_for_selector("#predict")
    yield page
    page.context.close()
    assert not failures
    assert all(url.startswith((tiny_address, "blob:")) for url in asked)


@pytest.fixture(scope="module")
def described(tiny_address: str) -> dict[str, Any]:
    content: dict[str, Any] = httpx.get(f"{tiny_address}openapi.json").json()
    return content


def send(operation: Any) -> tuple[str, Any]:
    """Send an operation's form; returns the status and the JSON that the page shows."""
    said = operation.locator(".reply [role=status]")
    before = said.inner_text()
    with operation.page.expect_response(
        lambda reply: reply.request.method in ("POST", "GET") and "samples" not in reply.url
    ):
        operation.get_by_role("button", name="Send").click()
    operation.page.wait_for_function("([at, before]) => at.textContent !== before", arg=[said.element_handle(), before])
    return said.inner_text(), json.loads(operation.locator(".reply pre").inner_text())


def run(operation: Any, folder: Path) -> str:
    """Run the program that an operation shows, beside the files that it offers."""
    for link in operation.locator(".files a").all():
        with operation.page.expect_download() as saved:
            link.click()
        saved.value.save_as(folder / saved.value.suggested_filename)
    language = operation.locator(".tab[aria-pressed=true]")
    is_python = language.count() and language.inner_text() == "Python"
    command = [sys.executable, "-c"] if is_python else ["bash", "-c"]
    environment = os.environ | {"MLA_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    program = operation.locator(".program pre").inner_text()
    done = subprocess.run(
        [*command, program], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (program, done.stderr)
    return done.stdout


def test_the_page_shows_all_of_the_document(docs: Any, described: dict[str, Any]) -> None:
    assert docs.locator("nav.pages a[aria-current=page]").inner_text() == "API"
    titles = [f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods]
    assert docs.locator(".operation h3").all_inner_texts() == titles
    assert docs.locator("section h2").all_inner_texts()[:2] == [tag["name"] for tag in described["tags"]]
    fusion = described["paths"]["/predict"]["post"]["parameters"][1]["schema"]
    for name, meaning in fusion["x-enumDescriptions"].items():
        assert (
            docs.locator("#rules .entries > div", has=docs.get_by_text(name, exact=True)).locator("dd").inner_text()
            == meaning
        )
    problems = [each["value"] for each in described["components"]["examples"].values()]
    problems = [each for each in problems if each["status"] != 401]  # this service has no keys
    assert "401" not in docs.inner_text("#content")
    links = {link.inner_text(): link.get_attribute("href") for link in docs.locator("#errors a").all()}
    assert links == {each["title"]: each["type"][1:] for each in problems}
    fields = docs.locator("#predict .meanings > .schema > div > dt code").all_text_contents()
    assert fields == list(described["components"]["schemas"]["ClassPrediction"]["properties"])


def test_an_example_fills_the_form_the_programs_and_the_reply(
    docs: Any, described: dict[str, Any], tmp_path: Path
) -> None:
    operation, post = docs.locator("#predict"), described["paths"]["/predict"]["post"]
    examples = post["requestBody"]["content"]["application/json"]["examples"]
    answers = post["responses"]["200"]["content"]["application/json"]["examples"]
    for name, example in examples.items():
        operation.get_by_role("button", name=example["summary"], exact=True).click()
        assert operation.locator(".chip[aria-pressed=true]").all_inner_texts() == [example["summary"]]
        assert json.loads(operation.locator(".reply pre").inner_text()) == answers[name]["value"]
        status, reply = send(operation)
        assert status.startswith("200")
        expected = httpx.post(f"{docs.url.removesuffix('docs')}predict", json=example["value"]).json()
        assert reply == expected
        folder = tmp_path / name
        folder.mkdir()
        operation.get_by_role("button", name="curl").click()
        assert json.loads(run(operation, folder)) == expected
        operation.get_by_role("button", name="Python").click()
        assert run(operation, folder).split()[:2] == [expected["label"], str(expected["probability"])]


@pytest.mark.parametrize("name", ["predict_batch", "embed", "model"])
def test_every_other_operation_can_be_sent_and_run(docs: Any, name: str, tmp_path: Path) -> None:
    operation = docs.locator(f"#{name}")
    status, reply = send(operation)
    assert status.startswith("200")
    assert json.loads(run(operation, tmp_path)) == reply


def test_files_go_in_and_out_and_an_error_leads_to_its_page(docs: Any) -> None:
    operation = docs.locator("#predict")
    for box in operation.locator(".fields textarea, .fields input:not([type=file])").all():
        box.fill("")
    for name in ("image", "rear_camera"):
        operation.get_by_role("button", name=f"Leave out: {name}").click()
    status, reply = send(operation)
    assert (status[:3], reply["title"]) == ("400", "No input was sent")
    assert operation.locator(".chip[aria-pressed=true]").count() == 0
    operation.get_by_role("button", name="From a sample: audio").click()
    operation.get_by_role("button", name="Leave out: audio").wait_for()
    assert "-F audio=@audio.wav" in operation.locator(".program pre").inner_text()
    assert operation.locator(".reply [role=status]").inner_text() == "to the request before your change"
    assert list(send(operation)[1]["modalities"]) == ["audio"]
    operation.get_by_label("coverage").fill("2")
    assert send(operation)[1]["field"] == "coverage"
    operation.get_by_role("link", name="What this error means").click()
    docs.wait_for_selector("h1:has-text('An input cannot be used')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_accessible_and_light(docs: Any, axe: str, width: int, scheme: str) -> None:
    docs.set_viewport_size({"width": width, "height": 844})
    docs.emulate_media(color_scheme=scheme)
    for details in docs.locator("summary").all():
        details.click()
    assert docs.evaluate("document.documentElement.scrollWidth") <= width
    violations = docs.evaluate(f"{axe};axe.run().then(found => found.violations)")
    assert [(each["id"], each["nodes"]) for each in violations] == []
    loaded = docs.evaluate("performance.getEntriesByType('resource').map(each => [each.name, each.decodedBodySize])")
    size = sum(size for name, size in loaded if "/web/" in name)
    assert 10_000 < size < MOST_BYTES


def test_the_documentation_asks_for_a_key_and_sends_it(browser: Any, tiny_model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with serving(tiny_model, tmp_path / "log", MLA_API_KEYS_FILE=str(keys)) as address:
        shell = httpx.get(f"{address}docs").text
        assert "tiny" not in shell
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}docs")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        batch = page.locator("#predict_batch")
        assert "401" in page.inner_text("#errors")
        assert "401" in batch.inner_text()
        status, reply = send(batch)
        assert (status[:3], len(reply["results"])) == ("200", 2)
        assert KEY not in batch.locator(".program pre").inner_text()
        assert json.loads(run(batch, tmp_path)) == reply
        page.context.close()


def test_no_text_of_a_bundle_runs_as_a_script(browser: Any, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    hostile = [
        "</script><script>document.hacked=1</script>",
        "<img src=x onerror=document.hacked=1>",
        "[x](javascript:document.hacked=1)",
    ]
    folder = make_bundle(tmp_path / "hostile", {"text": "text"}, hostile, name="".join(hostile))
    with serving(folder, tmp_path / "log") as address:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(f"{address}docs")
        page.wait_for_selector("#predict")
        assert "</script>" in page.title()
        assert all(name in page.inner_text("body") for name in hostile)
        page.goto(address)
        page.wait_for_selector("text=document.hacked")
        assert page.evaluate("document.hacked === undefined")
        assert faults == []
        page.context.close()
