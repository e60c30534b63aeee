"""What a visitor finds and meets: the page opens answered, samples say what they are, errors say what to do, nothing jumps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mla_serve.decimals import percent
from tests.browser.harness import open_page, start_empty
from tests.browser.test_playground import ALL, PATIENCE_MS, card, png, wait_for_opinions

TRUTH = "green"
PURPOSE = "Sorts **products**, e.g. of a [shop](https://example.org). It was made for\na test of this page. It has no other use.\n\nMore of it."
LIGHT = 150_000  # bytes of the page with its styles and scripts, unpacked
STILL = 0.02  # sum of layout shifts; 0.1 counts as good
SHIFTS = """
    window.shifts = [];
    new PerformanceObserver(list => list.getEntries().forEach(shift => shifts.push({
        value: shift.value, moved: shift.sources.map(({ node }) => `${node?.nodeName}.${node?.className}`).join(),
    }))).observe({ type: "layout-shift", buffered: true });
"""
# Let sounds wait to be decoded while `holding`.
HOLD = """
    window.holding = false;
    window.held = [];
    window.decoding = [];
    const decode = OfflineAudioContext.prototype.decodeAudioData;
    OfflineAudioContext.prototype.decodeAudioData = function (...given) {
      const decoded = (holding ? new Promise(go => held.push(go)) : Promise.resolve()).then(() => decode.apply(this, given));
      decoding.push(decoded);
      return decoded;
    };
"""
# Decode what waits; what follows from it has happened when this returns.
RELEASE = """async () => {
    holding = false;
    held.splice(0).forEach(go => go());
    await Promise.allSettled(decoding);
    await new Promise(done => setTimeout(done));
}"""


def change_samples(route: Any) -> None:
    """Leave only a text in the first sample, and give the second one a true label."""
    first, second, *_ = route.fetch().json()
    only_text = {"inputs": {"text": first["inputs"]["text"]}, "truth": None}
    route.fulfill(json=[only_text, second | {"truth": TRUTH}])


@pytest.fixture
def visit(browser: Any, tiny_address: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page as a visitor does. Args: routes, {path: handler}. Fails when the page logs an error."""
    pages: list[Any] = []
    failures: list[str] = []

    def opened(routes: Mapping[str, Callable[[Any], None]] | None = None, script: str = "", **options: Any) -> Any:
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.add_init_script(script)
        for path, handler in (routes or {}).items():
            page.route(path, handler)
        page.goto(tiny_address)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert not failures


def pressed(page: Any) -> list[str]:
    return [str(chip.get_attribute("aria-pressed")) for chip in page.locator(".chip").all()]


# The first visit and the samples


def test_the_page_opens_with_the_first_sample_of_several_inputs(visit: Callable[..., Any]) -> None:
    page = visit({"**/samples": change_samples})
    wait_for_opinions(page, *ALL)
    page.wait_for_function("truth => document.querySelector('.truth').textContent.includes(truth)", arg=TRUTH)
    assert page.locator(".truth").inner_text() == "This sample really is green."
    assert pressed(page) == ["false", "true"]
    page.get_by_role("slider", name="Noise on Text").fill("20")
    assert page.locator(".truth").inner_text() == ""
    assert pressed(page) == ["false", "false"]
    page.locator(".chip").first.click()
    wait_for_opinions(page, "text")
    assert page.locator(".truth").inner_text() == ""
    assert pressed(page) == ["true", "false"]
    assert page.get_by_role("slider", name="Noise on Text").input_value() == "0"


def test_samples_say_what_they_are(visit: Callable[..., Any]) -> None:
    page = visit({"**/samples": change_samples})
    text = str(page.request.get(f"{page.url}samples").json()[0]["inputs"]["text"])
    only_text = page.get_by_role("button", name=f"Sample 1: text {text}")
    assert only_text.inner_text().split() == ["Sample", "1:", "text", text]
    pictured = page.get_by_role("button", name="Sample 2: image, rear camera, audio, text and vector of green")
    page.wait_for_function("() => document.querySelectorAll('.chip')[1].querySelector('img').naturalWidth > 0")
    assert pictured.locator("b").inner_text() == TRUTH


def test_generated_samples_are_not_shown(visit: Callable[..., Any]) -> None:
    page = visit({"**/model": lambda route: route.fulfill(json=route.fetch().json() | {"golden_source": "generated"})})
    page.wait_for_selector(".card")
    page.wait_for_load_state("networkidle")
    assert not page.locator("#samples").is_visible()
    assert page.locator(".answer.empty").inner_text().count("one is enough") == 1


def test_a_visitor_who_is_faster_than_the_sample_keeps_what_was_typed(visit: Callable[..., Any]) -> None:
    held: list[Any] = []
    page = visit({"**/samples/*/audio": lambda route: held.append(route)})
    page.get_by_role("textbox", name="Text").fill("mine")
    wait_for_opinions(page, "text")
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    assert page.get_by_role("textbox", name="Text").input_value() == "mine"
    assert pressed(page) == ["false", "false"]
    wait_for_opinions(page, "text")


OVERTAKEN = """async () => {
    const { sampleStrip } = await import("/web/inputs/samples.js");
    const waiting = [];
    const load = content => (content === "slow" ? new Promise((done, fail) => waiting.push({ done, fail })) : null);
    const cards = [{ name: "text", load, reset() {} }];
    const samples = ["slow", "quick"].map(text => ({ inputs: { text }, truth: text }));
    const model = { task: "classes", modalities: { text: { kind: "text", sent_as: "string" } } };
    const section = document.createElement("section");
    let filled = 0;
    const strip = sampleStrip(section, model, samples, cards, () => (filled += 1), () => {});
    const chips = [...section.querySelectorAll(".chip")];
    const turn = () => new Promise(done => setTimeout(done));
    const state = () => [section.querySelector(".truth").textContent, chips.map(chip => chip.getAttribute("aria-pressed")).join()];
    const told = [];
    for (const overtake of [() => chips[1].click(), () => strip.give({ text: "mine" }), () => strip.changed()]) {
        chips[0].click();
        await turn();
        overtake();
        await turn();
        waiting.pop().done();
        await turn();
        told.push(state());
    }
    chips[0].click();
    await turn();
    waiting.pop().fail(new Error("It cannot be read."));
    await turn();
    told.push(section.querySelector(".truth").textContent);
    strip.changed();
    return [...told, section.querySelector(".truth").textContent, filled];
}"""


def test_a_sample_that_was_overtaken_says_nothing(visit: Callable[..., Any]) -> None:
    nothing = ["", "false,false"]
    assert visit().evaluate(OVERTAKEN) == [
        ["This sample really is quick.", "false,true"],
        nothing,
        nothing,
        "It cannot be read.",
        "",  # an edit after it counts
        6,  # each fill asks for an answer, also those that were overtaken or failed
    ]


def test_a_file_that_was_overtaken_is_not_sent(visit: Callable[..., Any]) -> None:
    sent = visit().evaluate(
        """async () => {
            const [{ makeCard }, { get }] = await Promise.all([import("/web/inputs/card.js"), import("/web/ask.js")]);
            const model = await get("model");
            const sent = {};
            for (const name of ["image", "audio"]) {
                const sample = (await get("samples")).find(({ inputs }) => name in inputs);
                const file = new File([await get(sample.inputs[name], reply => reply.blob())], "a");
                const card = await makeCard(name, model.modalities[name], model, () => {});
                const loading = card.load(file);
                card.reset();
                await loading;
                sent[name] = [await card.payload()];
                await card.load(file);
                sent[name].push((await card.payload())?.size > 0);
            }
            return sent;
        }"""
    )
    assert sent == {"image": [None, True], "audio": [None, True]}


def test_the_samples_fade_where_more_of_them_are(visit: Callable[..., Any]) -> None:
    page = visit({"width": 390, "height": 844})
    strip = page.locator(".samples ul")
    strip.evaluate("strip => { while (strip.children.length < 12) strip.append(strip.firstChild.cloneNode(true)); }")
    page.set_viewport_size({"width": 400, "height": 844})
    page.wait_for_selector(".samples ul.after:not(.before)")
    strip.evaluate("strip => strip.scrollTo(strip.scrollWidth, 0)")
    page.wait_for_selector(".samples ul.before:not(.after)")


def test_starting_empty_clears_every_input(visit: Callable[..., Any]) -> None:
    page = visit()
    wait_for_opinions(page, *ALL)
    start_empty(page)
    assert page.get_by_role("textbox", name="Text").input_value() == ""
    assert pressed(page) == ["false", "false"]


def test_what_comes_while_a_sample_is_read_takes_its_place(visit: Callable[..., Any]) -> None:
    def two(route: Any) -> None:
        second = route.fetch().json()[1]
        route.fulfill(json=[{"inputs": {"text": "a text"}, "truth": "red"}, second | {"truth": TRUTH}])

    def begin() -> None:
        page.evaluate("() => (holding = true)")
        page.locator(".chip").nth(1).click()
        page.wait_for_function("() => held.length > 0")

    def only_text_is_sent() -> None:
        written.fill("mine")
        page.wait_for_function("() => document.querySelector('pre').textContent.includes('text=mine')")
        wait_for_opinions(page, "text")

    page = visit({"**/samples": two}, HOLD)
    written = page.get_by_role("textbox", name="Text")
    wait_for_opinions(page, *ALL)
    # another sample
    begin()
    page.locator(".chip").first.click()
    page.wait_for_function("() => document.querySelector('.truth').textContent.includes('red')")
    page.evaluate(RELEASE)
    assert page.locator(".truth").inner_text() == "This sample really is red."
    assert pressed(page) == ["true", "false"]
    only_text_is_sent()
    # nothing
    begin()
    page.get_by_role("button", name="Start empty").click()
    page.evaluate(RELEASE)
    page.wait_for_selector(".answer.empty")
    assert page.locator(".truth").inner_text() == ""
    assert pressed(page) == ["false", "false"]
    only_text_is_sent()
    # a link
    begin()
    page.evaluate("() => (location.hash = 'model=0&name=tiny&in.text=linked&end=')")
    page.wait_for_function("() => document.querySelector('[data-modality=text] textarea').value === 'linked'")
    page.evaluate(RELEASE)
    assert written.input_value() == "linked"
    assert page.locator(".truth").inner_text() == ""
    assert pressed(page) == ["false", "false"]
    only_text_is_sent()
    # what somebody types: the rest of the sample is filled in, but it is no longer the sample
    begin()
    written.fill("typed")
    page.evaluate(RELEASE)
    wait_for_opinions(page, *ALL)
    assert written.input_value() == "typed"
    assert page.locator(".truth").inner_text() == ""
    assert pressed(page) == ["false", "false"]


def test_shares_are_written_as_in_the_report(visit: Callable[..., Any]) -> None:
    shares = [0, 0.0004, 0.0005, 0.016, 0.5, 0.9994, 0.9995, 1999 / 2000, 0.99999, 1]
    written = visit().evaluate(
        "async shares => { const { percent } = await import('/web/dom.js'); return shares.map(percent); }", shares
    )
    assert written == [percent(share) for share in shares]
    assert written[-4:] == ["> 99.9 %"] * 3 + ["100.0 %"]


def test_a_truth_is_told_by_task(visit: Callable[..., Any]) -> None:
    page = visit()
    number = {"column": "sale_price", "unit": "EUR", "decimals": 2}
    truths: list[tuple[str, Any]] = [("classes", "7"), ("labels", ["a", "b"]), ("labels", []), ("number", 1234.5)]
    told = {}
    for task, truth in truths:
        told[str(truth)] = page.evaluate(
            """async ([model, truth]) => {
                const { truthWriter } = await import("/web/inputs/truth.js");
                const place = document.createElement("p");
                place.append(...truthWriter(model).sentence(truth));
                return place.textContent;
            }""",
            [{"task": task, "number": number}, truth],
        )
    assert told == {
        "7": "This sample really is 7.",
        "['a', 'b']": "What really applies to this sample: a and b.",
        "[]": "What really applies to this sample: no label.",
        "1234.5": "The true sale price of this sample is 1,234.5 EUR.",
    }


def test_the_lede_says_what_the_model_is_for(visit: Callable[..., Any]) -> None:
    about = {"purpose": PURPOSE, "limits": []}
    page = visit({"**/model": lambda route: route.fulfill(json=route.fetch().json() | {"about": about})})
    page.wait_for_selector(".card")
    assert (
        page.locator("#lede .purpose").inner_text()
        == "Sorts products, e.g. of a shop. It was made for a test of this page."
    )
    assert "in any combination" in page.locator("#lede").inner_text()


# Errors


def test_an_input_that_cannot_be_used_can_be_left_out_at_its_card(visit: Callable[..., Any]) -> None:
    page = visit()
    wait_for_opinions(page, *ALL)
    page.get_by_role("textbox", name="Vector").fill("1 2")
    message = card(page, "vector").get_by_role("alert")
    message.wait_for()
    assert message.locator("p").inner_text().startswith("Vector: ")
    assert "got 2" in message.inner_text()
    message.get_by_role("button", name="Leave it out: Vector").click()
    wait_for_opinions(page, *ALL[:-1])
    assert not message.is_visible()


def test_inputs_that_are_too_large_together_are_not_sent(visit: Callable[..., Any]) -> None:
    def small(route: Any) -> None:
        model = route.fetch().json()
        route.fulfill(json=model | {"limits": model["limits"] | {"body_bytes": 2**20}})

    page = visit({"**/model": small})
    wait_for_opinions(page, *ALL)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.url.endswith("predict") else None)
    large = png() | {"buffer": png()["buffer"] + bytes(600 * 2**10)}
    with page.expect_response("**/predict"):
        card(page, "image").locator("input[type=file]").set_input_files(large)
    card(page, "rear_camera").locator("input[type=file]").set_input_files(large)
    page.wait_for_function(
        "() => document.querySelector('.notice').textContent.includes('Together these inputs have 1.2 MB')"
    )
    assert "at most 1 MB" in page.locator(".notice").inner_text()
    assert len(sent) == 1


def test_a_refusal_takes_the_place_of_the_answer(visit: Callable[..., Any]) -> None:
    page = visit()
    wait_for_opinions(page, *ALL)
    problem = {"title": "Too large", "status": 413, "detail": "the body has 12 MB; send less"}
    page.route("**/predict", lambda route: route.fulfill(status=413, body=json.dumps(problem)), times=1)
    page.get_by_role("textbox", name="Text").fill("seven")
    page.locator(".notice").wait_for()
    assert "Too large. The body has 12 MB; send less." in page.locator(".notice").inner_text()
    assert not page.locator(".details").is_visible()
    page.get_by_role("textbox", name="Text").fill("eight")
    wait_for_opinions(page, *ALL)


def test_a_key_that_ends_during_a_visit_can_be_given_again(visit: Callable[..., Any]) -> None:
    page = visit()
    wait_for_opinions(page, *ALL)
    page.route("**/predict", lambda route: route.fulfill(status=401, json={"title": "No key"}), times=1)
    page.get_by_role("textbox", name="Text").fill("mine")
    page.get_by_label("API key").fill("another")
    with page.expect_request("**/predict") as request:
        page.get_by_role("button", name="Use this key").click()
    assert request.value.headers["authorization"] == "Bearer another"
    wait_for_opinions(page, *ALL)
    assert page.get_by_role("textbox", name="Text").input_value() == "mine"
    assert page.locator("form.key").count() == 0


def test_a_service_that_cannot_be_reached_is_asked_again(visit: Callable[..., Any]) -> None:
    down = {"on": True}
    page = visit({"**/model": lambda route: route.abort() if down["on"] else route.continue_()})
    page.get_by_role("button", name="Try again").wait_for()
    assert "does not answer" in page.locator("#lede").inner_text()
    down["on"] = False
    page.get_by_role("button", name="Try again").click()
    wait_for_opinions(page, *ALL)


# Speed


def test_the_page_is_light(visit: Callable[..., Any]) -> None:
    page = visit()
    wait_for_opinions(page, *ALL)
    sizes = page.evaluate(
        """() => Object.fromEntries([...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
            .filter(({ name, entryType }) => entryType === "navigation" || /\\.(js|css)$/.test(name))
            .map(({ name, decodedBodySize }) => [name, decodedBodySize]))"""
    )
    assert len(sizes) > 10
    assert sum(sizes.values()) < LIGHT, sizes


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_jumps(visit: Callable[..., Any], width: int) -> None:
    page = visit(script=SHIFTS, viewport={"width": width, "height": 900})
    wait_for_opinions(page, *ALL)
    page.wait_for_load_state("networkidle")
    assert sum(shift["value"] for shift in page.evaluate("shifts")) < STILL, page.evaluate("shifts")
    page.evaluate("() => (shifts.length = 0)")
    page.locator(".chip").nth(1).click()
    wait_for_opinions(page, *ALL)
    page.get_by_role("slider", name="Noise on Image").fill("60")
    page.get_by_role("textbox", name="Text").fill("something else")
    page.get_by_role("switch", name="Use Vector").click()
    wait_for_opinions(page, *ALL[:-1])
    assert sum(shift["value"] for shift in page.evaluate("shifts")) < STILL, page.evaluate("shifts")


def test_open_page_starts_empty(browser: Any, tiny_address: str) -> None:
    page = open_page(browser, tiny_address)
    assert page.locator(".answer.empty").is_visible()
    page.context.close()
