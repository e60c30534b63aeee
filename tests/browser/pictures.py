"""Take pictures of every state of the pages, to look at them: each width, light and dark, and all of them on contact sheets.

    python tests/browser/pictures.py OUT --model models/digits --model models/flipkart
    python tests/browser/pictures.py OUT --model models/digits --states agreeing conflict --widths 390 --schemes dark

OUT gets a folder for each model with STATE-WIDTH-SCHEME.png, and OUT/MODEL-WIDTH-SCHEME.png with all states of a width and a
scheme side by side. Two bundles are made on the way: `long` with long labels and `many` with 1,500 classes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Locator, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).absolute().parents[2]))
from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.inputs import Payload
from tests.browser.harness import launch, open_page, serving, start_empty
from tests.conftest import write_bundle

WIDTHS = {1280: 900, 1920: 1080, 768: 1024, 390: 844}
SCHEMES = ("light", "dark")
PATHS = {"about": "model", "report": "report", "card": "card", "docs": "docs", "problem": "problems/invalid-input"}
LONG = [
    "wireless_bluetooth_headphones",
    "Home Furnishing and Kitchen Appliances",
    "usb-c_charging_cable",
    "a" * 58,
    "mug",
]
CALM_MS = 500
NOISE = "70"
GAP, CAPTION, TALLEST = 24, 28, 1500  # of a contact sheet, in pixels
COLUMNS, TILE = 4, 480  # of wide pages
PHONE, PHONE_COLUMNS, PHONE_TILE = 390, 7, 270


class Visit:
    """One page of a served bundle, and what is needed to bring it into a state."""

    def __init__(self, page: Page, address: str, bundle: Bundle, folder: Path) -> None:
        self.page, self.address, self.folder = page, address, folder
        self.kinds = {name: reader.kind for name, reader in bundle.inputs.items()}
        self.samples = bundle.golden_samples()
        self.agreeing = agreeing_sample(bundle)

    def card(self, name: str) -> Locator:
        return self.page.locator(f"[data-modality={name}]")

    def open(self) -> None:
        """Open the playground as a visitor finds it."""
        self.page.goto("about:blank")
        self.page.goto(self.address)
        self.page.wait_for_selector(".card")
        self.page.wait_for_load_state("networkidle")

    def clear(self) -> None:
        self.open()
        start_empty(self.page)

    def fill(self, name: str, payload: Payload) -> None:
        """Put a payload into a card as a person would: a file is chosen, a text is written."""
        if isinstance(payload, bytes):
            file = self.folder / f"{name}{'.png' if self.kinds[name] == 'image' else '.wav'}"
            file.write_bytes(payload)
            self.card(name).locator("input[type=file]").first.set_input_files(file)
        elif isinstance(payload, str):
            self.card(name).locator("textarea").fill(payload)
        elif self.kinds[name] == "vector":
            self.card(name).locator("textarea").fill(", ".join(map(str, payload)))

    def sample(self, index: int) -> None:
        """Fill the cards with a sample: by its button, or one by one where the page offers no samples."""
        self.clear()
        if self.page.locator(".chip").count() > index:
            self.page.locator(".chip").nth(index).click()
            return
        for name, payload in self.samples[index].items():
            self.fill(name, payload)

    def switch_off(self, names: Sequence[str]) -> None:
        for name in names:
            self.card(name).get_by_role("switch").click()


def main() -> None:
    """Take the pictures of all models and paste the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, action="append", default=[], help="folder of a bundle; may be repeated")
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--widths", nargs="+", type=int, choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--only", action="store_true", help="no pictures of long labels and of many classes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser, folder = launch(playwright), Path(name)
        for model in options.model:
            photograph(browser, model.resolve(), options.states, folder, options)
        for model in [] if options.only else made_bundles(folder):
            photograph(browser, model, ["first"], folder, options)
        browser.close()


def photograph(browser: Browser, model: Path, states: Sequence[str], folder: Path, options: argparse.Namespace) -> None:
    """Serve one model, and take a picture of each state at each width and in each scheme."""
    bundle, out = Bundle.load(model), options.out / model.name
    out.mkdir(parents=True, exist_ok=True)
    with serving(model, folder / "log") as address:
        page = open_page(browser, address)
        visit = Visit(page, address, bundle, folder)
        for state in states:
            try:
                STATES[state](visit)
            except Exception as error:  # one state that cannot be reached must not cost the others
                print(f"{model.name}: {state}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            page.wait_for_timeout(CALM_MS)
            for width, scheme in product(options):
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                page.set_viewport_size({"width": width, "height": WIDTHS[width]})
                page.wait_for_timeout(100)
                page.screenshot(path=out / f"{state}-{width}-{scheme}.png", full_page=True)
            print(f"{model.name}: {state}", flush=True)
        page.context.close()
    for width, scheme in product(options):
        files = [out / f"{state}-{width}-{scheme}.png" for state in states]
        sheet(f"{model.name}, {width} px, {scheme}", [file for file in files if file.is_file()]).save(
            options.out / f"{model.name}-{width}-{scheme}.png"
        )


def product(options: argparse.Namespace) -> Iterator[tuple[int, str]]:
    return ((width, scheme) for scheme in options.schemes for width in options.widths)


def agreeing_sample(bundle: Bundle) -> int:
    """Return the number of the first sample whose inputs all give the answer; 0 where none does or answers are no classes."""
    for index, reply in enumerate(Predictor(bundle).predict(bundle.golden_samples())):
        labels = {getattr(own, "label", None) for own in reply.modalities.values()}
        if labels == {getattr(reply, "label", None)}:
            return index
    return 0


# States


def first(visit: Visit) -> None:
    visit.open()


def empty(visit: Visit) -> None:
    visit.clear()


def agreeing(visit: Visit) -> None:
    visit.sample(visit.agreeing)


def conflict(visit: Visit) -> None:
    """Spoil the first input, and take the last one from a sample that answers something else."""
    visit.sample(visit.agreeing)
    other = visit.samples[(visit.agreeing + len(visit.samples) // 2) % len(visit.samples)]
    *_, last = (name for name, payload in other.items() if not isinstance(payload, dict))
    visit.fill(last, other[last])
    visit.page.wait_for_timeout(CALM_MS)
    visit.page.locator("input[type=range]").first.fill(NOISE)


def one_missing(visit: Visit) -> None:
    visit.sample(visit.agreeing)
    visit.switch_off(list(visit.kinds)[-1:])


def one_alone(visit: Visit) -> None:
    visit.sample(visit.agreeing)
    visit.switch_off(list(visit.kinds)[1:])


def error(visit: Visit) -> None:
    """Send what cannot be read: a broken file, or a text that is too long."""
    visit.sample(visit.agreeing)
    files = visit.page.locator(".card input[type=file]")
    if files.count():
        files.first.set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"not a picture"})
    else:
        visit.page.locator(".card textarea").first.fill("a" * 100_000)
    visit.page.locator("[role=alert]:visible").first.wait_for()


def batch(visit: Visit) -> None:
    """Drop a table of the samples' texts."""
    visit.open()
    texts = [name for name, kind in visit.kinds.items() if kind == "text"]
    rows = [[str(sample.get(name, "")) for name in texts] for sample in visit.samples]
    table = "\n".join(",".join(json.dumps(cell, ensure_ascii=False) for cell in row) for row in [texts, *rows])
    visit.page.evaluate(
        """table => {
            const data = new DataTransfer();
            data.items.add(new File([table], "rows.csv", { type: "text/csv" }));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        table,
    )
    visit.page.wait_for_timeout(3 * CALM_MS)


def at(path: str) -> Callable[[Visit], None]:
    def open_path(visit: Visit) -> None:
        visit.page.goto(f"{visit.address}{path}", wait_until="networkidle")

    return open_path


STATES: Mapping[str, Callable[[Visit], None]] = {
    "first": first,
    "empty": empty,
    "agreeing": agreeing,
    "conflict": conflict,
    "one_missing": one_missing,
    "one_alone": one_alone,
    "error": error,
    "batch": batch,
    **{name: at(path) for name, path in PATHS.items()},
}


# Bundles and sheets


def made_bundles(folder: Path) -> Iterator[Path]:
    """Write a bundle of long labels and one of 1,500 classes."""
    many = [
        f"{kind} {size} {number}" for kind in ("bolt", "nut", "washer") for size in "SMLXZ" for number in range(100)
    ]
    for name, classes in {"long": LONG, "many": many}.items():
        yield write_bundle(
            folder / name, {"image": "image", "text": "text"}, classes=classes, golden_source="training rows"
        )


def sheet(title: str, files: Sequence[Path]) -> Image.Image:
    """Paste pictures side by side, each with its name above it."""
    phone = bool(files) and files[0].stem.split("-")[-2] == str(PHONE)
    most, wide = (PHONE_COLUMNS, PHONE_TILE) if phone else (COLUMNS, TILE)
    tiles = [(file.stem.rsplit("-", 2)[0], tile(file, wide)) for file in files]
    columns = min(most, max(1, len(tiles)))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(picture.height for _, picture in row) + CAPTION + GAP for row in rows]
    pasted = Image.new("RGB", (columns * (wide + GAP) + GAP, sum(heights) + CAPTION + GAP), "#808080")
    draw, font = ImageDraw.Draw(pasted), ImageFont.load_default(18)
    draw.text((GAP, GAP // 2), title, "white", font)
    top = CAPTION + GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (name, picture) in enumerate(row):
            left = GAP + column * (wide + GAP)
            draw.text((left, top), name, "white", font)
            pasted.paste(picture, (left, top + CAPTION))
        top += height
    return pasted


def tile(file: Path, width: int) -> Image.Image:
    """Scale a picture to the width of a tile; a very long page is cut at its end."""
    with Image.open(file) as picture:
        scale = width / picture.width
        scaled = picture.convert("RGB").resize((width, max(1, round(picture.height * scale))))
    return scaled.crop((0, 0, width, min(scaled.height, TALLEST)))


if __name__ == "__main__":
    main()
