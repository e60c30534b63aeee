"""A kind of input that the page does not know gets a field by how it is sent."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from mla_serve.inputs import INPUTS
from mla_serve.serve.api import create_app
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings
from tests.browser.harness import PATIENCE_S, open_page
from tests.browser.test_playground import card, wait_for_opinions
from tests.inputs.made_up import BlobInput, PairInput


@pytest.fixture
def made_up_address(make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: Any) -> Iterator[str]:
    """Serve two made-up kinds from this process: another one would not know them."""
    monkeypatch.setitem(INPUTS, "pair", PairInput)
    monkeypatch.setitem(INPUTS, "blob", BlobInput)
    inputs = {"point": PairInput(), "scan": BlobInput()}
    folder = make_bundle(tmp_path / "made_up", {"point": "pair", "scan": "blob"}, inputs=inputs)
    settings = Settings(model=folder, device="cpu")
    app = create_app(open_predictor(settings), settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + PATIENCE_S
    while not server.started and time.monotonic() < end:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def test_a_kind_that_the_page_does_not_know_has_a_field(browser: Any, made_up_address: str) -> None:
    page = open_page(browser, made_up_address)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    assert "Type or choose a file" in page.locator("#lede").inner_text()
    card(page, "point").locator("textarea").fill("1,2")
    wait_for_opinions(page, "point")
    scan = {"name": "a.blob", "mimeType": "application/octet-stream", "buffer": struct.pack("<2f", 1, 2)}
    card(page, "scan").locator("input[type=file]").set_input_files(scan)
    wait_for_opinions(page, "point", "scan")
    assert "a.blob" in card(page, "scan").inner_text()
    assert page.locator(".card input[type=range]").count() == 0
    card(page, "scan").get_by_role("button", name="Clear").click()
    wait_for_opinions(page, "point")
    page.context.close()
    assert failures == []
