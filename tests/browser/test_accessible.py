"""Every page can be used by everybody: axe, the keyboard, fingers, less motion, a narrow screen.

The quick tests look at two widths, each in one scheme; those marked slow at four widths in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.test_playground import ALL, PATIENCE_MS, card, wait_for_opinions

PAGES = ("", "model", "report", "card", "docs", "problems/invalid-input")  # the playground, and what stands beside it
QUICK = ((1280, "light"), (390, "dark"))
MATRIX = tuple((width, scheme) for width in (390, 768, 1280, 1920) for scheme in ("light", "dark"))
FINGER = 44  # pixels
# What a finger or a key can operate and can be seen. Links within a text are as high as its lines, which is usual.
CONTROLS = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")].filter(each =>
    !each.disabled && each.tabIndex >= 0 && each.checkVisibility({ visibilityProperty: true }) && !each.closest(".skip"))"""
NAME = """each => (each.getAttribute("aria-label") ?? each.labels?.[0]?.textContent ?? each.textContent).trim() || each.outerHTML.slice(0, 80)"""
SMALL = """([controls, finger]) => controls.filter(each => !each.closest("p, dd, li > span") || each.tagName !== "A").map(each => {
    const box = (each.closest("label") ?? each).getBoundingClientRect();
    return [(NAME)(each), Math.round(box.width), Math.round(box.height)];
}).filter(([, width, height]) => width < finger || height < finger)""".replace("NAME", NAME)
# Whether the element with the focus, or the button around it, has a ring that can be seen.
RING = """() => {
    const ringed = each => getComputedStyle(each).outlineStyle !== "none" && parseFloat(getComputedStyle(each).outlineWidth) >= 2;
    const active = document.activeElement;
    return active === document.body || ringed(active) || ringed(active.closest("label") ?? active);
}"""
MOVING = """() => [...document.querySelectorAll("*")].filter(each => {
    const { transitionProperty, transitionDuration, animationName } = getComputedStyle(each);
    const moves = transitionProperty !== "none" && transitionDuration.split(", ").some(time => parseFloat(time) > 0);
    return moves || animationName !== "none";
}).map(each => each.outerHTML.slice(0, 80))"""


@pytest.fixture
def opened(browser: Any, tiny_address: str, axe: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens one of the pages, with axe in it."""
    contexts: list[Any] = []

    def open_path(path: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"reduced_motion": "reduce", "bypass_csp": True, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{tiny_address}{path}")
        page.wait_for_load_state("networkidle")
        if not path:
            wait_for_opinions(page, *ALL)
        page.evaluate(axe)
        return page

    yield open_path
    for context in contexts:
        context.close()


def as_opened(page: Any) -> None:
    """Leave the page as it is."""


def in_conflict(page: Any) -> None:
    page.get_by_role("slider", name="Noise on Image").fill("90")
    page.get_by_role("switch", name="Use Audio").click()
    wait_for_opinions(page, *(name for name in ALL if name != "audio"))


def in_error(page: Any) -> None:
    page.get_by_role("textbox", name="Vector").fill("1 2")
    card(page, "vector").get_by_role("alert").wait_for()


def emptied(page: Any) -> None:
    page.get_by_role("button", name="Start empty").click()
    page.wait_for_selector(".answer.empty")


STATES: dict[str, tuple[Callable[[Any], None], ...]] = {
    path: (as_opened, in_conflict, in_error, emptied) if not path else (as_opened,) for path in PAGES
}


def faults_of(page: Any, sizes: tuple[tuple[int, str], ...]) -> list[str]:
    """List what axe finds at each width and in each scheme, and what reaches beyond the screen."""
    faults = []
    for width, scheme in sizes:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        for found in page.evaluate("axe.run()")["violations"]:
            faults.append(f"{width} {scheme}: {found['id']} {[node['html'][:160] for node in found['nodes']]}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            faults.append(f"{width} {scheme}: the page is {wide} pixels wide")
    return faults


def check(page: Any, path: str, sizes: tuple[tuple[int, str], ...]) -> None:
    faults = {}
    for state in STATES[path]:
        state(page)
        faults[state.__name__] = faults_of(page, sizes)
    assert not any(faults.values()), faults


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_and_nothing_is_beyond_the_screen(opened: Callable[..., Any], path: str) -> None:
    check(opened(path), path, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_at_any_width(opened: Callable[..., Any], path: str) -> None:
    check(opened(path), path, MATRIX)


@pytest.mark.parametrize("path", PAGES)
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(opened: Callable[..., Any], path: str) -> None:
    page = opened(path, viewport={"width": 1280, "height": 900})
    wanted = set(page.evaluate(f"() => ({CONTROLS})().map({NAME})"))
    reached, unmarked = set(), []
    for _ in range(2 * len(wanted) + 10):
        page.keyboard.press("Tab")
        name = page.evaluate(f"() => ({NAME})(document.activeElement)")
        reached.add(name)
        if not page.evaluate(RING):
            unmarked.append(name)
        if wanted <= reached:
            break
    assert wanted - reached == set()
    assert unmarked == []


def test_keys_do_what_one_expects(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_role("button", name="Sample 2").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.chip')[1].getAttribute('aria-pressed') === 'true'")
    page.get_by_role("switch", name="Use Audio").focus()
    page.keyboard.press("Space")
    wait_for_opinions(page, *(name for name in ALL if name != "audio"))
    camera = card(page, "image").get_by_role("button", name="Camera", exact=True)
    camera.focus()
    page.keyboard.press("Enter")
    card(page, "image").locator("video").wait_for()
    page.keyboard.press("Escape")
    assert not card(page, "image").locator("video").is_visible()
    page.get_by_role("link", name="Skip to the answer").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answer"


@pytest.mark.parametrize("path", PAGES)
def test_every_target_is_as_large_as_a_finger(opened: Callable[..., Any], path: str) -> None:
    page = opened(path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("matchMedia('(pointer: coarse)').matches")
    assert page.evaluate(f"finger => ({SMALL})([({CONTROLS})(), finger])", FINGER) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("path", PAGES)
def test_nothing_moves_for_those_who_want_less_motion(opened: Callable[..., Any], path: str) -> None:
    assert opened(path).evaluate(MOVING) == []


def test_motion_is_found_where_there_is_some(opened: Callable[..., Any]) -> None:
    moving = opened(reduced_motion="no-preference").evaluate(MOVING)
    assert any(re.search("switch|fill|track", each) for each in moving)
