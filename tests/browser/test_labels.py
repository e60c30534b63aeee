"""Labels of any length and script, and any number of them: nothing is cut off, broken, out of order or off the screen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from tests.browser.harness import open_page
from tests.browser.labels import install
from tests.browser.test_playground import png

PATIENCE_MS = 20_000
SIZES = [(1280, 900), (768, 1024), (390, 844)]
HEADPHONES = ["wireless_bluetooth_headphones", "usb-c_charging_cable", "smartwatch", "wired_headphones"]
LABELS: dict[str, Sequence[str]] = {
    "short": ["mug", "cup", "plate"],
    "one letter": ["i", "W", "m"],
    "two digits": ["14", "7", "3"],
    "a word": ["elephant", "giraffe", "dog"],
    "underscores": HEADPHONES,
    "a sentence": ["Home Furnishing and Kitchen Appliances", "Clothing, Shoes & Jewellery", "Toys"],
    "a long word": ["Rechtsschutzversicherung", "Vertrag", "Brief"],
    "34 letters": ["Donaudampfschifffahrtsgesellschaft", "Kahn", "Floss"],
    "wide": ["WWWWWWWWWWWW", "MMMMMMM", "iiiiiiiiiiiiiiiiiiiiii"],
    "58 letters": ["a" * 58, "b" * 58, "c"],
    "60 letters": ["W" * 60, "M" * 60, "c"],
    "Chinese": ["無線藍牙耳機與智慧型手錶", "杯子", "盤子"],
    "Arabic": ["سماعات بلوتوث لاسلكية", "ساعة ذكية", "كوب"],
    "emoji": ["👩‍👩‍👧‍👦", "🏳️‍🌈", "é"],
    "markup": ["<b>mug</b>", "&amp;", "a\\b"],
}
MAY_BREAK = ("34 letters", "58 letters", "60 letters", "Chinese")  # longer than a line, or broken anywhere by its rules
# Words (parts that no line may end in) of the label that do not stand on one line.
BROKEN = """() => {
    const label = document.querySelector(".label");
    return [...label.childNodes].filter(node => node.nodeType === Node.TEXT_NODE).flatMap(node =>
        [...node.data.matchAll(/[^\\s]+/g)].filter(({ 0: word, index }) => {
            const range = document.createRange();
            range.setStart(node, index);
            range.setEnd(node, index + word.length);
            return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
        }).map(found => found[0]));
}"""
# Elements that reach beyond the screen, or hide some of what they hold.
CUT = """() => [...document.querySelectorAll(".answer *, .card *, .files *, .page-head *")].filter(each => {
    if (each.closest(".unseen, svg, textarea, .stage-box") || !each.getClientRects().length) return false;
    const box = each.getBoundingClientRect();
    const hides = getComputedStyle(each).overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1;
    return box.left < -0.5 || box.right > innerWidth + 0.5 || hides;
}).map(each => `${each.tagName}.${each.className}: ${each.textContent.slice(0, 40)}`)"""


def opened(browser: Any, size: tuple[int, int]) -> Any:
    page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def answer(page: Any, address: str, classes: Sequence[str]) -> None:
    """Load the page with these classes, and let it answer."""
    page.unroute_all()
    install(page, classes)
    page.goto(address)
    page.get_by_role("textbox", name="Text").fill("seven")
    page.wait_for_selector(".answer:not(.stale):not(.empty)")


def answered(browser: Any, address: str, classes: Sequence[str], size: tuple[int, int] = SIZES[0]) -> Any:
    page = opened(browser, size)
    answer(page, address, classes)
    return page


def font_size(page: Any) -> float:
    return float(page.evaluate("parseFloat(getComputedStyle(document.querySelector('.label')).fontSize)"))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_is_cut_off_and_no_word_is_broken(browser: Any, tiny_address: str, size: tuple[int, int]) -> None:
    faults = {}
    page = opened(browser, size)
    for kind, classes in LABELS.items():
        answer(page, tiny_address, classes)
        faults[kind] = page.evaluate(CUT)
        if kind not in MAY_BREAK:
            faults[kind] += page.evaluate(BROKEN)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], kind
        assert page.locator(".label").inner_text().replace("\n", "") == classes[0]
        assert 18 <= font_size(page) <= 96
        shown = page.evaluate("document.querySelector('.headline .probability').getBoundingClientRect().toJSON()")
        panel = page.evaluate("document.querySelector('.answer').getBoundingClientRect().toJSON()")
        assert panel["left"] < shown["left"] < shown["right"] <= panel["right"], kind
    page.context.close()
    assert {kind: found for kind, found in faults.items() if found} == {}


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_label_of_any_length_has_letters_as_large_as_fit(
    browser: Any, tiny_address: str, size: tuple[int, int]
) -> None:
    page = answered(browser, tiny_address, ["a", "b"], size)
    sizes = []
    for length in (1, 2, 3, 5, 8, 12, 20, 30, 45, 60):
        page.unroute_all()
        install(page, ["n" * length, "b"])
        with page.expect_response("**/predict"):
            page.get_by_role("textbox", name="Text").fill(f"seven {length}")
        page.wait_for_function("length => document.querySelector('.label').textContent.length === length", arg=length)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        broken = page.locator(".label.broken").count() > 0
        assert broken == bool(page.evaluate(BROKEN))
        assert not broken or length >= 20
        sizes.append(26 if broken else font_size(page))
    assert sizes[0] == 96
    assert all(small <= large for large, small in itertools.pairwise(sizes[:-3]))
    page.context.close()


def test_a_label_is_fitted_again_when_the_window_changes(browser: Any, tiny_address: str) -> None:
    page = answered(browser, tiny_address, LABELS["a long word"], (860, 900))
    before = font_size(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(
        "before => parseFloat(getComputedStyle(document.querySelector('.label')).fontSize) < before", arg=before
    )
    assert page.evaluate(BROKEN) == []
    page.context.close()


def test_bars_are_in_the_order_of_their_values(browser: Any, tiny_address: str) -> None:
    classes = ["14", "3", "19", "0", *(str(label) for label in range(20) if label not in (14, 3, 19, 0))]
    page = answered(browser, tiny_address, classes)
    page.get_by_role("button", name="Show them").click()
    assert page.locator(".bars .name").all_inner_texts() == classes[:19]  # those on the shortlist
    widths = page.evaluate("[...document.querySelectorAll('.bars .fill')].map(each => parseFloat(each.style.width))")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    assert page.locator(".bars li").first.get_attribute("class") == "best in-set"
    page.context.close()


def test_bars_share_one_axis(browser: Any, tiny_address: str) -> None:
    for size in SIZES:
        page = answered(browser, tiny_address, [*HEADPHONES, "a" * 58, "mug"], size)
        axes = page.evaluate(
            "[...document.querySelectorAll('.bars .track')].map(each => [each.offsetLeft, each.offsetWidth].join())"
        )
        assert len(axes) == 5
        assert len(set(axes)) == 1
        page.context.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_of_many_classes_some_are_listed_and_the_others_counted(
    browser: Any, tiny_address: str, size: tuple[int, int]
) -> None:
    classes = [f"class_number_{label}" for label in range(1500)]
    page = answered(browser, tiny_address, classes, size)
    assert page.locator(".bars li").count() == 8
    assert (
        page.locator(".rest").inner_text() == "1,492 others, together 1.7 %; 1,491 of them on the shortlist. Show them"
    )
    assert page.locator(".promised").inner_text() == "Shortlist: 1,499 of 1,500"
    assert "1,500 classes" in page.locator("#lede").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("document.querySelector('.answer').scrollHeight") < 1600
    assert page.evaluate(CUT) == []
    page.context.close()


def test_labels_that_show_nothing_are_named(browser: Any, tiny_address: str) -> None:
    page = answered(browser, tiny_address, ["\u200b", " ", "mug"])
    assert page.locator(".label").inner_text() == "(blank)"
    assert page.locator(".bars .name").all_inner_texts() == ["(blank)", "(blank)", "mug"]
    page.context.close()


def test_the_bar_at_the_foot_of_a_phone_shows_the_probability_beside_any_label(browser: Any, tiny_address: str) -> None:
    for classes in (HEADPHONES, LABELS["58 letters"], LABELS["short"]):
        page = answered(browser, tiny_address, classes, (390, 844))
        right = page.evaluate("document.querySelector('.answer-bar span').getBoundingClientRect().right")
        assert "%" in page.locator(".answer-bar span").inner_text()
        assert right <= 390
        assert page.evaluate("document.querySelector('.answer-bar').offsetHeight") < 80
        page.context.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("end", ["x" * 55, "_word" * 11])
def test_modalities_may_have_long_names(browser: Any, tiny_address: str, end: str, size: tuple[int, int]) -> None:
    served: dict[str, str] = {}

    def model(route: Any) -> None:
        content = route.fetch().json()
        renamed = {f"{name[:4]}{end}": each for name, each in content["modalities"].items() if name != "rear_camera"}
        served.update(name="m" * 64, sha256=content["sha256"])
        route.fulfill(json=content | {"modalities": renamed, "name": "m" * 64, "golden_source": "generated"})

    def predict(route: Any) -> None:
        said = {"weight": 0.5, "influence": 0.1, "entropy": 0.1, "label": "mug", "probability": 0.9}
        names = [f"{name}{end}" for name in ("imag", "text")]
        listed = [{"label": "mug", "probability": 0.9}, {"label": "cup", "probability": 0.1}]
        opinions = {"modalities": dict.fromkeys(names, said), "missing": [f"audi{end}"]}
        answer = {"label": "mug", "probability": 0.9, "probabilities": listed, "entropy": 0.1, "model": served}
        route.fulfill(json=answer | opinions)

    page = opened(browser, size)
    page.route("**/model", model)
    page.route("**/predict", predict)
    page.goto(tiny_address)
    page.locator("[data-kind=text] textarea").fill("seven " * 2000)
    photo = {"name": f"{'photo' * 40}.png", "mimeType": "image/png", "buffer": png()["buffer"]}
    page.locator("[data-kind=image] input[type=file]").set_input_files(photo)
    page.locator("[data-kind=audio] input[type=file]").set_input_files(photo | {"name": f"{'sound' * 40}.wav"})
    page.locator(".files a").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.querySelector('textarea').offsetHeight <= innerHeight / 2")
    page.context.close()


@pytest.mark.parametrize("source", ["generated", "training rows"])
def test_samples_that_were_generated_are_shown_to_nobody(browser: Any, tiny_address: str, source: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.route("**/model", lambda route: route.fulfill(json=route.fetch().json() | {"golden_source": source}))
    page.goto(tiny_address)
    page.get_by_role("textbox", name="Text").fill("seven")
    page.wait_for_selector(".answer:not(.stale):not(.empty)")
    if source == "generated":
        assert page.locator(".chip").count() == 0
        assert not page.locator("#samples").is_visible()
    else:
        page.locator(".chip").nth(1).wait_for()
    context.close()


def test_real_classes_are_shown_in_order_too(browser: Any, digits_address: str) -> None:
    page = open_page(browser, digits_address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.get_by_role("button", name="Sample 8").click()
    page.wait_for_function("() => document.querySelector('.label').textContent === '7'")
    assert page.locator(".bars .name").first.inner_text() == "7"
    assert page.locator(".bars li").count() == 4
    widths = page.evaluate("[...document.querySelectorAll('.bars .fill')].map(each => parseFloat(each.style.width))")
    assert widths == sorted(widths, reverse=True)
    page.context.close()
