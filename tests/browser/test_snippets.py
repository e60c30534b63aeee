"""The commands and programs that the page prints, run as they stand there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mla_serve.decimals import percent
from tests.browser.harness import ROOT, serving
from tests.browser.test_playground import PATIENCE_MS, card, png, wait_for_opinions, wav

KEY = "open-sesame-open-sesame-open-sesame"
TEXT = 'it\'s @"seven" \\n $HOME `id` !! %s {x}\nsecond line äß 七 \u202e 😀'
NUMBERS = "1, -2.5e0 .5,7"
SHOWN = "() => [document.querySelector('.label').textContent, document.querySelector('.probability').textContent]"


@pytest.fixture(scope="module")
def address(
    playwright: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve a bundle whose modalities have awkward names, to those who have the key."""
    folder = tmp_path_factory.mktemp("snippets")
    names = {"image": "image", "rear_camera": "image", "class": "audio", "text": "text", "self": "vector"}
    (folder / "keys").write_text(f"{KEY}\n", encoding="utf-8")
    with serving(make_bundle(folder / "tiny", names), folder / "log", MLA_API_KEYS_FILE=str(folder / "keys")) as opened:
        yield opened


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context()
    context.add_init_script(f"sessionStorage.setItem('mla_serve.key', '{KEY}')")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector(".card")
    yield page
    context.close()


def save_files(page: Any, folder: Path) -> list[str]:
    """Save what was sent, as the page offers it."""
    names = []
    for link in page.locator(".files a").all():
        with page.expect_download() as saved:
            link.click()
        names.append(saved.value.suggested_filename)
        saved.value.save_as(folder / names[-1])
    return names


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"MLA_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, list(folder.iterdir()), done.stderr)
    return done.stdout


def shown(label: str, probability: float) -> list[str]:
    """Write an answer as the page does."""
    return [label, percent(probability)]


def fill_everything(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill(TEXT)
    page.get_by_role("textbox", name="Self").fill(NUMBERS)
    photo = png() | {"name": 'my; "photo",=@ (1).PNG'}
    for name in ("image", "rear_camera"):
        card(page, name).locator("input[type=file]").set_input_files(photo)
    card(page, "class").locator("input[type=file]").set_input_files(wav() | {"name": "-"})
    wait_for_opinions(page, "image", "rear_camera", "class", "text", "self")
    page.wait_for_timeout(400)


def test_the_command_and_the_program_answer_as_the_page_does(page: Any, tmp_path: Path) -> None:
    fill_everything(page)
    page.get_by_text("Numbers and rule").click()
    page.get_by_label("Fusion rule").select_option("paper")
    page.wait_for_function("() => document.querySelector('pre').textContent.includes('fusion=paper')")
    expected = page.evaluate(SHOWN)
    assert save_files(page, tmp_path) == ["image.png", "rear_camera.png", "class"]
    answer = json.loads(run(["bash", "-c", page.locator("pre").inner_text()], tmp_path))
    assert shown(answer["label"], answer["probability"]) == expected
    assert answer["missing"] == []
    page.get_by_role("button", name="Python").click()
    label, _, probability = run([sys.executable, "-c", page.locator("pre").inner_text()], tmp_path).rpartition(" ")
    assert shown(label, float(probability)) == expected


@pytest.mark.parametrize("numbers", ["[1, 2, 3, 4]", "01 2e3 -.5 +4", "1_0 2 3 4", "1 2 3", "1 2 3 x"])
def test_numbers_are_printed_as_python_reads_them(page: Any, numbers: str, tmp_path: Path) -> None:
    page.get_by_role("textbox", name="Text").fill("a")
    wait_for_opinions(page, "text")
    page.get_by_role("button", name="Python").click()
    with page.expect_response("**/predict") as reply:
        page.get_by_role("textbox", name="Self").fill(numbers)
    if not reply.value.ok:
        assert numbers in ("1 2 3", "1 2 3 x")
        card(page, "self").get_by_role("alert").wait_for()
        return
    wait_for_opinions(page, "text", "self")
    expected = page.evaluate(SHOWN)
    label, _, probability = run([sys.executable, "-c", page.locator("pre").inner_text()], tmp_path).rpartition(" ")
    assert shown(label, float(probability)) == expected


def test_no_message_on_the_page_is_written_in_python(page: Any) -> None:
    """No repr, no exception, no address of an object."""
    files = {"image": b"<html>\xff\x00", "class": b"\x00\x01garbage", "rear_camera": png()["buffer"][:60]}
    for name, content in files.items():
        given = {"name": "a.png" if name != "class" else "a.wav", "mimeType": "image/png", "buffer": content}
        card(page, name).locator("input[type=file]").set_input_files(given)
        message = card(page, name).get_by_role("alert")
        page.wait_for_function(
            "name => /[.!?]$/.test(document.querySelector(`[data-modality=${name}] .message`).textContent)"
            " && !document.querySelector(`[data-modality=${name}] .message`).textContent.includes('cannot show')",
            arg=name,
        )
        text = message.inner_text()
        assert not any(sign in text for sign in ("Error(", "Traceback", "None", " object at ", "self.", ".py")), text
        page.get_by_role("switch", name=f"Use {name.replace('_', ' ').capitalize()}").click()
