"""The API's documentation of a service that asks for a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.harness import serving

KEY = "open-sesame-open-sesame"
PATIENCE_MS = 60_000

pytestmark = pytest.mark.slow


def test_the_documentation_asks_for_a_key_and_sends_it(browser: Any, tiny_model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with serving(tiny_model, tmp_path / "log", MLA_API_KEYS_FILE=str(keys)) as address:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}docs")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("/predict/batch").first.click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.wait_for_selector(".live-responses-table .response-col_status")
        assert "401" not in page.inner_text(".live-responses-table .response-col_status")
        page.context.close()


def test_a_form_with_every_field_but_one_left_empty_is_answered(browser: Any, tiny_model: Path, tmp_path: Path) -> None:
    """Swagger UI sends fields that nobody filled in as empty ones: its "send empty value" is ticked."""
    with serving(tiny_model, tmp_path / "log") as address:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}docs")
        operation = page.locator("#operations-default-predict")
        operation.locator(".opblock-summary").click()
        operation.get_by_role("button", name="Try it out").click()
        boxes = operation.locator(".parameter__empty_value_toggle input, .parameter__empty_value_toggle")
        assert boxes.count() >= 4
        for box in operation.get_by_role("checkbox").all():
            assert box.is_checked()
        operation.locator("[data-property-name=text] input[type=text], tr[data-property-name=text] input").first.fill(
            "hello"
        )
        with page.expect_request("**/predict*") as asked:
            operation.get_by_role("button", name="Execute").click()
        body = (asked.value.post_data_buffer or b"").decode(errors="replace")
        assert body.count("Content-Disposition") > 1
        status = operation.locator(".live-responses-table td.response-col_status:not(.col_header)")
        status.wait_for()
        assert status.inner_text().startswith("200")
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
        page.wait_for_selector("#operations-default-predict")
        assert "</script>" in page.title()
        page.goto(address)
        page.wait_for_selector("text=document.hacked")
        assert page.evaluate("document.hacked === undefined")
        assert faults == []
        page.context.close()
