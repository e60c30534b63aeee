"""Fixtures of the browser tests. Without a browser they are skipped; with MLA_REQUIRE_BROWSER=1 they fail instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.browser.harness import FAKE_DEVICES, ROOT, chromium_path, launch, open_page, serving

REQUIRED = os.environ.get("MLA_REQUIRE_BROWSER") == "1"
AXE = Path(os.environ.get("MLA_AXE", ROOT / ".venv" / "axe-core" / "axe.min.js"))


def missing(what: str) -> None:
    """Skip, or fail where a browser is required."""
    if REQUIRED:
        pytest.fail(f"MLA_REQUIRE_BROWSER=1, but {what}")
    pytest.skip(what)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """Start playwright's driver, a file at a time: while it runs, no test of that process can run an event loop."""
    if chromium_path() is None:
        missing("there is no chromium: apt-get install chromium, or set MLA_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: pip install -c constraints.txt playwright")
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what the fake microphone hears: half a second of tone in a second and a half of silence."""
    path = tmp_path_factory.mktemp("microphone") / "tone.wav"
    time = np.arange(24_000) / 48_000
    tone = 0.3 * np.sin(2 * np.pi * 220 * time)
    soundfile.write(path, np.concatenate([np.zeros(24_000), tone, np.zeros(48_000)]), 48_000)
    return path


@pytest.fixture(scope="module")
def browser(playwright: Any, spoken: Path) -> Iterator[Any]:
    """Start a browser with a fake camera and a fake microphone."""
    browser = launch(playwright, *FAKE_DEVICES, f"--use-file-for-fake-audio-capture={spoken}")
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def tiny_model(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle with two modalities of the same kind."""
    names = {"image": "image", "rear_camera": "image", "audio": "audio", "text": "text", "vector": "vector"}
    scores = [score / 100 for score in range(1, 100)]
    conformal = {"calibrated": {str(number): scores for number in range(1, 6)}}
    # The samples of make_bundle are generated; the page shows those that were not.
    return make_bundle(
        tmp_path_factory.mktemp("browser") / "tiny", names, conformal=conformal, golden_source="training rows"
    )


@pytest.fixture(scope="module")
def tiny_address(playwright: Any, tiny_model: Path) -> Iterator[str]:
    """Serve it."""
    with serving(tiny_model, tiny_model.parent / "log") as address:
        yield address


@pytest.fixture
def page(browser: Any, tiny_address: str) -> Iterator[Any]:
    """Open the playground; fails when the page itself logs an error."""
    page = open_page(browser, tiny_address, viewport={"width": 1280, "height": 900})
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.context.close()
    assert not failures


@pytest.fixture(scope="session")
def axe() -> str:
    """Read axe-core, which `make test` fetches with npm."""
    if not AXE.is_file():
        missing(f"{AXE} is not there: make .venv/axe-core/axe.min.js")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def digits_address(playwright: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the bundle that is part of the project, where it is there."""
    if not (ROOT / "models" / "digits" / "manifest.json").is_file():
        pytest.skip("models/digits is not there")
    with serving(ROOT / "models" / "digits", tmp_path_factory.mktemp("digits") / "log") as address:
        yield address
