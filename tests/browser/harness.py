"""A real server and a real browser, for the tests of the playground and for measure.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[2]
SERVICE = "mla_serve.serve.bento.service:MlaServe"
PATIENCE_S = 120
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
FAKE_DEVICES = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def chromium_path() -> str | None:
    """Find the browser: MLA_CHROMIUM, or Debian's."""
    return os.environ.get("MLA_CHROMIUM") or shutil.which("chromium")


def launch(playwright: Any, *flags: str) -> Any:
    """Start Chromium without a window."""
    return playwright.chromium.launch(executable_path=chromium_path(), args=[*FLAGS, *flags])


@contextlib.contextmanager
def serving(model: Path, log: Path, **settings: str) -> Iterator[str]:
    """Run `bentoml serve` on a free port; yields the page's address; nothing of it is left at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("MLA_", "BENTOML_"))}
    environment = {**kept, "MLA_MODEL": str(model), "MLA_DEVICE": "cpu", "MLA_WORKERS": "1", **settings}
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        _wait_for(address, server, log)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}readyz", timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not come up:\n{log.read_text(errors='replace')[-2000:]}")


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """Open the playground in a context of its own and wait until it has been built; the sample that it opens with is cleared."""
    page = browser.new_context(**options).new_page()
    page.goto(address)
    page.wait_for_selector(".card")
    page.wait_for_load_state("networkidle")
    start_empty(page)
    return page


def start_empty(page: Any) -> None:
    """Clear the sample that the page opens with, if the model has samples."""
    button = page.get_by_role("button", name="Start empty")
    if button.is_visible():
        button.click()
        page.wait_for_selector(".answer.empty")


def draw(page: Any, strokes: Any, card: str = "image") -> None:
    """Draw on the pad with the mouse: lists of points (x, y) from 0 to 1."""
    pad = page.locator(f"[data-modality={card}] canvas.stage")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()
