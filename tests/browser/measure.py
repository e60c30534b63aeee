"""Measure the playground in a real browser: how fast it answers, and whether it changes what it is given.

    python tests/browser/measure.py latency --model models/digits
    python tests/browser/measure.py pad --model models/digits --data DIR
    python tests/browser/measure.py microphone --model models/digits --data DIR

latency     milliseconds from the input's event to the answer on the page
pad         test images, thinned to lines, drawn on the pad: how many get the label of the file itself
microphone  test recordings, played into the microphone at 44.1 and 48 kHz with silence around: the same
DIR is a data set with test.jsonl. pad and microphone fail below 95 %, latency above 100 ms.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).absolute().parents[2]))
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Array
from tests.browser.harness import FAKE_DEVICES, draw, launch, open_page, serving

Point = tuple[float, float]
ENOUGH = 0.95
SLOWEST_MS = 100
FINER = 4
PAGES = 4
SILENCE_S = 0.25
LABEL = "() => document.querySelector('.answer').classList.contains('empty') ? null : document.querySelector('.label').textContent"
# The time from just before an event until the answer to it has been written into the page.
TIMED = """([selector, value]) => new Promise(done => {
    const answer = document.querySelector(".answer");
    const input = document.querySelector(selector);
    const started = performance.now();
    const watcher = new MutationObserver(() => {
        if (answer.classList.contains("stale") || answer.classList.contains("empty")) return;
        watcher.disconnect();
        done(performance.now() - started);
    });
    watcher.observe(answer, { subtree: true, childList: true, characterData: true });
    if (value === null) input.click();
    else {
        input.value = value;
        input.dispatchEvent(new Event("input", { bubbles: true }));
    }
})"""
# A microphone that hears what `hear(samples, rate)` plays; resolves when it has been played to its end.
MICROPHONE = """
navigator.mediaDevices.getUserMedia = async () => {
    const context = window.played = new AudioContext({ sampleRate: window.deviceRate });
    return (window.device = context.createMediaStreamDestination()).stream;
};
window.hear = (encoded, rate) => new Promise(done => {
    const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
    const samples = new Float32Array(bytes.buffer);
    const buffer = played.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(played, { buffer });
    source.connect(device);
    source.onended = done;
    source.start();
});
"""


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--data", type=Path, help="folder with test.jsonl")
    parser.add_argument("--rows", type=int, default=300)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(options.model.resolve(), Path(folder, "log")) as address,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright, *FAKE_DEVICES)
        good = MEASUREMENTS[options.what](browser, address, options)
        browser.close()
    sys.exit(not good)


def measure_latency(browser: Browser, address: str, options: argparse.Namespace) -> bool:
    """Type and switch fusion inputs on a page that has everything filled in."""
    page = open_page(browser, address)
    page.locator(".chip").first.click()
    page.wait_for_timeout(1500)
    text = next(name for name, reader in Bundle.load(options.model).inputs.items() if reader.kind == "text")
    times = [page.evaluate(TIMED, [f"[data-modality={text}] textarea", f"seven{i}"]) for i in range(50)]
    page.locator(".chip").nth(1).click()
    page.wait_for_timeout(1000)
    switch = f"[data-modality={text}] [role=switch]"
    times += [page.evaluate(TIMED, [switch, None]) for _ in range(50)]
    median, late = np.percentile(times, [50, 95])
    print(f"input to answer on the page: median {median:.0f} ms, 95 % within {late:.0f} ms, {len(times)} inputs")
    return bool(median <= SLOWEST_MS)


def measure_pad(browser: Browser, address: str, options: argparse.Namespace) -> bool:
    """Draw the test images."""
    name, rows = rows_with(options, "image")
    files = [(options.data / row[name]).read_bytes() for row in rows]
    direct = direct_labels(options.model, name, files)
    page = open_page(browser, address)
    drawn = []
    for file in files:
        clear(page, name)
        with page.expect_response("**/predict"):
            draw(page, strokes_of(pixels_of(file)), name)
        drawn.append(settled_label(page))
    return report("drawn on the pad", direct, drawn, [row["label"] for row in rows])


def measure_microphone(browser: Browser, address: str, options: argparse.Namespace) -> bool:
    """Play the test recordings into the microphone, on several pages at once."""
    name, rows = rows_with(options, "audio")
    files = [(options.data / row[name]).read_bytes() for row in rows]
    direct = direct_labels(options.model, name, files)
    pages = [microphone_page(browser, address, rate) for rate in (44_100, 48_000) * (PAGES // 2)]
    outputs: list[str] = []
    for start in range(0, len(files), PAGES):
        group = list(zip(pages, files[start : start + PAGES], strict=False))
        for page, _ in group:
            clear(page, name)
            page.get_by_role("button", name="Record", exact=True).click()
            page.get_by_role("button", name="Stop", exact=True).wait_for()
        for page, file in group:
            samples, rate = with_silence(file, page.evaluate("() => deviceRate"))
            encoded = base64.b64encode(samples.astype("<f4").tobytes()).decode()
            page.evaluate("([samples, rate]) => { window.hearing = hear(samples, rate); }", [encoded, rate])
        for page, _ in group:
            page.evaluate("() => hearing")
            page.get_by_role("button", name="Stop", exact=True).click()
        outputs += [settled_label(page) for page, _ in group]
    return report("played into the microphone", direct, outputs, [row["label"] for row in rows])


MEASUREMENTS: dict[str, Callable[[Browser, str, argparse.Namespace], bool]] = {
    "latency": measure_latency,
    "pad": measure_pad,
    "microphone": measure_microphone,
}


def rows_with(options: argparse.Namespace, kind: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the model's first modality of a kind, and test rows that have it."""
    name = next(name for name, reader in Bundle.load(options.model).inputs.items() if reader.kind == kind)
    lines = (options.data / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return name, [row for row in map(json.loads, lines) if row.get(name)][: options.rows]


def direct_labels(model: Path, name: str, files: Sequence[bytes]) -> list[str]:
    """Classify the files themselves, without a page or a service."""
    return [each.label for each in Predictor(Bundle.load(model)).predict([{name: file} for file in files])]


def report(how: str, direct: Sequence[str], paged: Sequence[str], truth: Sequence[str]) -> bool:
    """Print how often the page and the file agree."""
    same = float(np.mean([a == b for a, b in zip(direct, paged, strict=True)]))
    right = [float(np.mean([a == b for a, b in zip(given, truth, strict=True)])) for given in (direct, paged)]
    print(
        f"{len(direct)} {how}: same label as the file {same:.1%}; right {right[1]:.1%}, the files themselves {right[0]:.1%}"
    )
    for index, (a, b, label) in enumerate(zip(direct, paged, truth, strict=True)):
        if a != b:
            print(f"  row {index}: {label}, the file says {a}, the page {b}")
    return same >= ENOUGH


def clear(page: Page, name: str) -> None:
    """Empty a card."""
    if page.evaluate(LABEL) is not None:
        page.locator(f"[data-modality={name}]").get_by_role("button", name="Clear").click()
        page.wait_for_selector(".answer.empty", timeout=60_000)


def settled_label(page: Page) -> str:
    """Return the label once no newer answer is on its way."""
    page.wait_for_selector(".answer:not(.empty):not(.stale)", timeout=60_000)
    page.wait_for_timeout(40)
    page.wait_for_selector(".answer:not(.empty):not(.stale)", timeout=60_000)
    return str(page.evaluate(LABEL))


def microphone_page(browser: Browser, address: str, rate: int) -> Page:
    """Open a page whose microphone can be played into."""
    context = browser.new_context()
    context.add_init_script(f"window.deviceRate = {rate};{MICROPHONE}")
    page: Page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_selector(".chip")
    return page


def with_silence(file: bytes, rate: int) -> tuple[Array, int]:
    """Return a recording at a device's rate with silence around."""
    samples, own = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    silence = np.zeros(round(SILENCE_S * rate), dtype=np.float32)
    return np.concatenate([silence, soxr.resample(samples.mean(1), own, rate), silence]), rate


def pixels_of(file: bytes) -> Array:
    """Read an image as grey values, bright lines on black, from 0 to 1, finer than it is."""
    image = Image.open(io.BytesIO(file)).convert("L")
    fine = image.resize((image.width * FINER, image.height * FINER), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float64) / 255


def strokes_of(pixels: Array) -> list[list[Point]]:
    """Find the lines that a pen would draw: thin what is bright and follow it."""
    height, width = pixels.shape
    left = {(int(x), int(y)) for y, x in np.argwhere(thinned(pixels > 0.5))}
    strokes = []
    while left:
        place = min(left, key=lambda each: len(list(neighbours(each, left))))
        path = list(follow(place, left))
        strokes.append([((x + 0.5) / width, (y + 0.5) / height) for x, y in [*path[:-1:3], path[-1]]])
    return [stroke for stroke in strokes if len(stroke) > 1] or strokes


def follow(place: tuple[int, int], left: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Walk along a line of pixels, straight on where it branches, and take them away."""
    direction = (0, 0)
    while True:
        left.discard(place)
        yield place
        near = list(neighbours(place, left))
        if not near:
            return
        here, ahead = place, direction
        place = max(near, key=lambda n: (n[0] - here[0]) * ahead[0] + (n[1] - here[1]) * ahead[1])
        direction = (place[0] - here[0], place[1] - here[1])


def neighbours(place: tuple[int, int], among: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """List the pixels beside one."""
    x, y = place
    beside = [(0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    return ((x + dx, y + dy) for dx, dy in beside if (x + dx, y + dy) in among)


def thinned(bright: Array) -> Array:
    """Thin shapes to lines one pixel wide. Zhang and Suen, Communications of the ACM 27(3), 1984."""
    shape = np.pad(bright.astype(np.int8), 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            around = [np.roll(shape, (-dy, -dx), (0, 1)) for dx, dy in AROUND]
            count = sum(around)
            ends = sum((a == 0) & (b == 1) for a, b in zip(around, around[1:] + around[:1], strict=True))
            north, east, south, west = around[0], around[2], around[4], around[6]
            open_sides = (
                (north * east * south == 0) & (east * south * west == 0)
                if first
                else (north * east * west == 0) & (north * south * west == 0)
            )
            gone = (shape == 1) & (count >= 2) & (count <= 6) & (ends == 1) & open_sides
            shape[gone] = 0
            changed = changed or bool(gone.any())
    return shape[1:-1, 1:-1] == 1


AROUND = ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1))  # clockwise from north

if __name__ == "__main__":
    main()
