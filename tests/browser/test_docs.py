"""The API's documentation of a service that asks for a key."""

from __future__ import annotations

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
