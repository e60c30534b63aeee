"""The playground in a real browser, before a real server."""

from __future__ import annotations

import io
import json
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mla_serve.bundle.manifest import Bundle
from tests.browser.harness import draw, launch, open_page

SEVEN = [[(0.3, 0.25), (0.5, 0.25), (0.7, 0.25), (0.6, 0.5), (0.5, 0.75)]]
ALL = ("image", "rear_camera", "audio", "text", "vector")
CALM_MS = 400  # after which no answer is on its way any more
AS_TEXT = "async name => { const part = sent.get(name); return typeof part === 'string' ? part : Array.from(new Uint8Array(await part.arrayBuffer())).join(); }"
SHIFTS = """() => {
    window.shifted = 0;
    const add = list => list.getEntries().forEach(each => (window.shifted += each.value));
    new PerformanceObserver(add).observe({ type: "layout-shift" });
}"""
PATIENCE_MS = 20_000  # other work may share the machine


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest) -> None:
    if "page" in request.fixturenames:
        request.getfixturevalue("page").set_default_timeout(PATIENCE_MS)


def card(page: Any, name: str) -> Any:
    return page.locator(f"[data-modality={name}]")


def wait_for_opinions(page: Any, *names: str) -> None:
    """Wait until the answer comes from exactly these modalities."""
    page.wait_for_function(
        "names => [...document.querySelectorAll('[data-opinion]')].map(e => e.dataset.opinion).join() === names"
        " && !document.querySelector('.answer.stale, .answer.empty')",
        arg=",".join(names),
    )


def watch_requests(page: Any) -> None:
    """Keep the last form that the page sends."""
    page.evaluate(
        "() => { const real = fetch; window.fetch = (url, options) => { window.sent = options?.body; return real(url, options); } }"
    )


def sent_file(page: Any, name: str) -> bytes:
    """Return the bytes of one file of the last form."""
    content = page.evaluate("async name => Array.from(new Uint8Array(await sent.get(name).arrayBuffer()))", name)
    return bytes(content)


def wait_until_sent(page: Any, name: str, wanted: Callable[[str], bool]) -> None:
    """Wait until the page sends what is wanted for a modality. Playwright does not wait for asynchronous predicates."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not wanted(page.evaluate(AS_TEXT, name)):
        assert time.monotonic() < end, f"the page did not send it: {name}"
        page.wait_for_timeout(50)


def shown_answer(page: Any) -> str:
    return str(page.locator(".details").inner_text())


def png(size: tuple[int, int] = (12, 8), seed: int = 0) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"name": "photo.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def wav(seconds: float = 0.5) -> dict[str, Any]:
    samples = np.random.default_rng(1).integers(-9000, 9000, int(8000 * seconds), dtype=np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return {"name": "noise.wav", "mimeType": "audio/wav", "buffer": buffer.getvalue()}


def test_the_page_is_made_of_the_bundles_own_modalities(page: Any) -> None:
    names = [each.inner_text() for each in page.locator(".card h2").all()]
    assert names == ["Image", "Rear camera", "Audio", "Text", "Vector"]
    assert "red, green and blue" in page.locator("#lede").inner_text()
    assert page.locator(".label").inner_text() == "?"


def test_drawing_is_answered(page: Any) -> None:
    draw(page, SEVEN)
    wait_for_opinions(page, "image")
    assert page.locator(".label").inner_text() in ("red", "green", "blue")
    assert "Rear camera, audio, text and vector" in page.locator(".ghost").inner_text()
    assert card(page, "image").locator(".as-sent").is_visible()


def test_of_many_inputs_that_were_not_sent_the_most_helpful_is_offered(browser: Any, tiny_address: str) -> None:
    scores = {"text": 0.71, "image+text": 0.81, "audio+text": 0.9, "text+vector": 0.85}
    conditions = {name: {"calibrated": {"accuracy": accuracy}} for name, accuracy in scores.items()}
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    metrics = {"split": "test", "conditions": conditions}
    page.route("**/model", lambda route: route.fulfill(json=route.fetch().json() | {"metrics": metrics}))
    page.goto(tiny_address)
    page.get_by_role("button", name="Start empty").click()
    page.get_by_role("textbox", name="Text").fill("seven")
    wait_for_opinions(page, "text")
    said = " ".join(page.locator(".ghost").inner_text().split())
    assert said.endswith("not sent Audio would help most: with it, it was right on 90.0 %. Add audio")
    page.close()


def test_the_pad_can_be_drawn_on_with_the_keyboard(page: Any) -> None:
    card(page, "image").locator(".stage").focus()
    for key in ["Space", *["ArrowDown"] * 5, "ArrowRight", "Space"]:
        page.keyboard.press(key)
    wait_for_opinions(page, "image")


def test_a_file_is_sent_as_it_is(page: Any) -> None:
    photo = png()
    watch_requests(page)
    card(page, "rear_camera").locator("input[type=file]").set_input_files(photo)
    wait_for_opinions(page, "rear_camera")
    assert sent_file(page, "rear_camera") == photo["buffer"]
    page.get_by_role("slider", name="Noise on Rear camera").fill("50")
    page.wait_for_function("() => sent.get('rear_camera').name === 'rear_camera.png'")
    wait_for_opinions(page, "rear_camera")
    assert Image.open(io.BytesIO(sent_file(page, "rear_camera"))).size == (8, 8)


def test_a_dropped_file_goes_to_the_card_under_it(page: Any) -> None:
    page.evaluate(
        """([bytes, name]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            const target = document.querySelector("[data-modality=rear_camera] canvas");
            target.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [list(png()["buffer"]), "dropped.png"],
    )
    wait_for_opinions(page, "rear_camera")


def test_a_pasted_picture_goes_to_the_first_that_reads_it(page: Any) -> None:
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        }""",
        list(png()["buffer"]),
    )
    wait_for_opinions(page, "image")


def test_the_camera_takes_a_picture(page: Any) -> None:
    camera = card(page, "rear_camera").get_by_role("button", name="Camera", exact=True)
    camera.click()
    shutter = card(page, "rear_camera").get_by_role("button", name="Take the picture")
    shutter.wait_for()
    shutter.click()
    wait_for_opinions(page, "rear_camera")
    assert not card(page, "rear_camera").locator("video").is_visible()


def test_the_microphone_is_recorded_at_the_models_rate(page: Any) -> None:
    sound = card(page, "audio")
    watch_requests(page)
    sound.get_by_role("button", name="Record", exact=True).click()
    sound.get_by_role("button", name="Stop").wait_for()
    page.wait_for_timeout(2500)  # the fake microphone repeats silence, tone, silence in two seconds
    sound.get_by_role("button", name="Stop").click()
    wait_for_opinions(page, "audio")
    samples, rate = soundfile.read(io.BytesIO(sent_file(page, "audio")))
    assert rate == 1000
    assert 0.4 < len(samples) / rate < 10  # as long as it took to press the buttons
    strongest = np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)
    assert strongest == pytest.approx(220, abs=5)
    assert sound.get_by_role("button", name="Play").is_enabled()


def test_typing_is_answered(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill("seven")
    wait_for_opinions(page, "text")
    page.get_by_role("textbox", name="Vector").fill("1, 2, 3 4")
    wait_for_opinions(page, "text", "vector")


def test_leaving_out_changes_the_answer(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill("seven")
    draw(page, SEVEN)
    wait_for_opinions(page, "image", "text")
    page.wait_for_timeout(CALM_MS)
    both = shown_answer(page)
    page.get_by_role("switch", name="Use Text").click()
    wait_for_opinions(page, "image")
    assert shown_answer(page) != both
    assert "text" in page.locator(".ghost").inner_text()
    page.get_by_role("switch", name="Use Text").click()
    wait_for_opinions(page, "image", "text")
    page.wait_for_timeout(CALM_MS)
    assert shown_answer(page) == both


def test_noise_spoils_each_kind_in_the_page(page: Any) -> None:
    watch_requests(page)
    page.locator(".chip").first.click()
    wait_for_opinions(page, *ALL)
    card(page, "audio").locator("input[type=file]").set_input_files(wav())  # no browser decodes the sample's 1,000 Hz
    wait_until_sent(page, "audio", ",".join(map(str, wav()["buffer"])).__eq__)
    page.wait_for_timeout(CALM_MS)
    for name in ALL:
        before = str(page.evaluate(AS_TEXT, name))
        page.get_by_role("slider", name=f"Noise on {name.replace('_', ' ').capitalize()}").fill("90")
        wait_until_sent(page, name, before.__ne__)
        wait_for_opinions(page, *ALL)
    assert card(page, "text").locator(".spoiled").is_visible()
    page.get_by_role("slider", name="Noise on Vector").fill("0")
    wait_until_sent(page, "vector", before.__eq__)


def test_weights_move_with_noise(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill("seven")
    draw(page, SEVEN)
    wait_for_opinions(page, "image", "text")
    page.wait_for_timeout(CALM_MS)
    before = page.locator("[data-share]").all_text_contents()
    page.get_by_role("slider", name="Noise on Text").fill("100")
    page.wait_for_function(
        "before => [...document.querySelectorAll('[data-share]')].some((each, i) => each.textContent !== before[i])",
        arg=before,
    )


def test_a_recording_that_was_uploaded(page: Any) -> None:
    watch_requests(page)
    recording = wav()
    card(page, "audio").locator("input[type=file]").set_input_files(recording)
    wait_for_opinions(page, "audio")
    assert sent_file(page, "audio") == recording["buffer"]
    page.get_by_role("slider", name="Noise on Audio").fill("50")
    page.wait_for_function("() => sent.get('audio').name === 'audio.wav'")
    wait_for_opinions(page, "audio")
    samples, rate = soundfile.read(io.BytesIO(sent_file(page, "audio")))
    assert rate == 1000
    assert len(samples) == 500


def test_a_sample_fills_every_field(page: Any) -> None:
    page.get_by_role("button", name="Sample 2").click()
    wait_for_opinions(page, *ALL)
    assert page.locator(".ghost").count() == 0


def test_the_page_and_the_predictor_agree_on_a_sample(page: Any, tiny_model: Path) -> None:
    page.get_by_role("button", name="Sample 1").click()
    wait_for_opinions(page, *ALL)
    bundle = Bundle.load(tiny_model)
    expected = bundle.manifest.classes[bundle.golden_answers()[0].argmax()]
    page.wait_for_function("label => document.querySelector('.label').textContent === label", arg=expected)


def test_the_fusion_rule_can_be_chosen(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill("seven")
    draw(page, SEVEN)
    wait_for_opinions(page, "image", "text")
    page.wait_for_timeout(CALM_MS)
    page.get_by_text("Numbers and rule").click()
    with page.expect_response("**/predict") as reply:
        page.get_by_label("Fusion rule").select_option("paper")
    assert reply.value.json()["fusion"] == "paper"
    page.wait_for_function("() => document.querySelector('pre').textContent.includes('fusion=paper')")


def test_code_for_what_is_on_screen(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill("it's @seven")
    draw(page, SEVEN)
    wait_for_opinions(page, "image", "text")
    program = page.locator("pre")
    assert "-F image=@image.png" in program.inner_text()
    assert r"--form-string 'text=it'\''s @seven'" in program.inner_text()
    page.get_by_role("button", name="Python").click()
    call = "".join(program.inner_text().split())
    assert 'client.predict(image="image.png",text="it\'s@seven",coverage=0.9,)' in call
    compile(program.inner_text(), "snippet", "exec")
    with page.expect_download() as saved:
        page.get_by_role("link", name="image.png").click()
    with Image.open(saved.value.path()) as drawing:
        assert drawing.size == (8, 8)


def test_clearing_everything_empties_the_answer(page: Any) -> None:
    page.get_by_role("textbox", name="Text").fill("seven")
    wait_for_opinions(page, "text")
    page.get_by_role("button", name="Clear Text").click()
    page.wait_for_selector(".answer.empty")


# Errors


def test_a_refused_input_is_explained_at_its_card(page: Any) -> None:
    page.get_by_role("textbox", name="Vector").fill("1 2")
    message = card(page, "vector").get_by_role("alert")
    message.wait_for()
    assert "got 2" in message.inner_text()
    page.get_by_role("textbox", name="Vector").fill("1 2 3 4")
    wait_for_opinions(page, "vector")
    assert not message.is_visible()


def test_too_many_pixels_are_explained(page: Any) -> None:
    card(page, "image").locator("input[type=file]").set_input_files(png((1100, 1000)))
    message = card(page, "image").get_by_role("alert")
    message.wait_for()
    assert "1,000,000" in message.inner_text()


def test_a_file_over_the_limit_is_not_even_sent(page: Any) -> None:
    large = png() | {"buffer": b"\x89PNG" + bytes(11 * 2**20)}
    card(page, "image").locator("input[type=file]").set_input_files(large)
    message = card(page, "image").get_by_role("alert")
    message.wait_for()
    assert "at most 10 MB" in message.inner_text()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(page: Any, status: int) -> None:
    problem = {"title": "Busy", "status": status, "detail": "too many requests at once"}
    busy = {"status": status, "content_type": "application/problem+json", "body": json.dumps(problem)}
    page.route("**/predict", lambda route: route.fulfill(**busy, headers={"Retry-After": "1"}), times=1)
    page.get_by_role("textbox", name="Text").fill("seven")
    notice = page.locator(".notice")
    notice.wait_for()
    assert "The server is busy. Too many requests at once." in notice.inner_text()
    wait_for_opinions(page, "text")
    assert not notice.is_visible()


def test_an_error_without_a_problem_document(page: Any) -> None:
    page.route("**/predict", lambda route: route.fulfill(status=502, body="<html>bad gateway</html>"), times=1)
    page.get_by_role("textbox", name="Text").fill("seven")
    page.locator(".notice").wait_for()
    assert "502" in page.locator(".notice").inner_text()


def test_offline_and_back(page: Any) -> None:
    page.context.set_offline(True)
    page.get_by_role("textbox", name="Text").fill("seven")
    page.locator(".notice").wait_for()
    assert "You are offline" in page.locator(".notice").inner_text()
    page.context.set_offline(False)
    wait_for_opinions(page, "text")


def test_a_denied_microphone_and_camera(playwright: Any, tiny_address: str) -> None:
    browser = launch(playwright, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny")
    try:
        page = open_page(browser, tiny_address)
        card(page, "audio").get_by_role("button", name="Record", exact=True).click()
        card(page, "audio").get_by_role("alert").wait_for(timeout=PATIENCE_MS)
        assert "not allowed to use the microphone" in card(page, "audio").get_by_role("alert").inner_text()
        card(page, "image").get_by_role("button", name="Camera", exact=True).click()
        card(page, "image").get_by_role("alert").wait_for(timeout=PATIENCE_MS)
        assert "not allowed to use the camera" in card(page, "image").get_by_role("alert").inner_text()
    finally:
        browser.close()


# Everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser: Any, tiny_address: str, axe: str, scheme: str, width: int) -> None:
    page = open_page(
        browser,
        tiny_address,
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        reduced_motion="reduce",
        bypass_csp=True,
    )
    page.set_default_timeout(PATIENCE_MS)
    page.evaluate(axe)
    findings = []
    for state in ("empty", "answer", "error"):
        if state == "answer":
            page.locator(".chip").first.click()
            wait_for_opinions(page, *ALL)
        if state == "error":
            page.get_by_role("switch", name="Use Audio").click()
            page.get_by_role("textbox", name="Vector").fill("1 2")
            card(page, "vector").get_by_role("alert").wait_for()
        for found in page.evaluate("axe.run()")["violations"]:
            findings.append((state, found["id"], [node["html"][:200] for node in found["nodes"]]))
    page.context.close()
    assert findings == []


def test_a_phone_needs_no_sideways_scrolling(browser: Any, tiny_address: str) -> None:
    page = open_page(browser, tiny_address, viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE_MS)
    page.locator(".chip").first.click()
    wait_for_opinions(page, *ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".answer-bar").is_visible()
    page.context.close()


def test_everything_can_be_reached_with_the_keyboard(page: Any) -> None:
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        )
    wanted = {"Use Audio", "Noise on Text", "Text", "Choose a picture for Image", "Record"}
    assert wanted <= reached
    assert any(name.startswith("Sample 1: ") for name in reached)


def test_a_service_with_keys_asks_for_one(browser: Any, tiny_address: str) -> None:
    def guard(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer open-sesame":
            route.continue_()
        else:
            route.fulfill(status=401, json={"title": "No access", "status": 401, "detail": "send a key"})

    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    for path in ("model", "predict", "samples", "samples/**"):
        page.route(f"**/{path}", guard)
    page.goto(tiny_address)
    page.get_by_label("API key").fill("open-sesame")
    page.get_by_role("button", name="Use this key").click()
    page.locator(".chip").first.click()
    wait_for_opinions(page, *ALL)
    page.wait_for_function(
        "() => document.querySelector('pre').textContent.includes('Authorization: Bearer $MLA_API_KEY')"
    )
    context.close()


def test_a_key_that_no_header_can_hold_is_asked_for_again(browser: Any, tiny_address: str) -> None:
    context = browser.new_context()
    context.add_init_script("sessionStorage.setItem('mla_serve.key', 'клю\\u0447')")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.route("**/model", lambda route: route.fulfill(status=401, json={"title": "No access", "status": 401}))
    page.goto(tiny_address)
    page.get_by_label("API key").wait_for()
    assert "asks for a key" in page.locator("#lede").inner_text()
    context.close()


def test_a_key_that_is_taken_away_is_asked_for_again(page: Any) -> None:
    page.route("**/predict", lambda route: route.fulfill(status=401, json={"title": "No access", "status": 401}))
    for text in ("seven", "eight"):
        with page.expect_response("**/predict"):
            page.get_by_role("textbox", name="Text").fill(text)
    page.locator(".notice").wait_for()
    assert "asks for a key" in page.locator(".notice").inner_text()
    assert page.get_by_label("API key").count() == 1


def test_a_seven_is_a_seven(browser: Any, digits_address: str) -> None:
    page = open_page(browser, digits_address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    is_seven = "() => document.querySelector('.label').textContent === '7'"
    page.get_by_role("button", name="Sample 8").click()
    wait_for_opinions(page, "image", "audio", "text")
    page.wait_for_function(is_seven)
    for name in ("Audio", "Text"):
        page.get_by_role("switch", name=f"Use {name}").click()
    draw(page, SEVEN)
    wait_for_opinions(page, "image")
    page.wait_for_function(is_seven)
    page.context.close()


def test_a_spoiled_picture_is_named_and_listened_to_less(browser: Any, digits_address: str) -> None:
    page = open_page(browser, digits_address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.get_by_role("button", name="Sample 8").click()
    wait_for_opinions(page, "image", "audio", "text")
    page.get_by_role("switch", name="Use Audio").click()
    wait_for_opinions(page, "image", "text")
    share = "parseFloat(document.querySelector('[data-share=image]').style.flexGrow)"
    before = page.evaluate(share)
    page.evaluate(SHIFTS)
    for noise in range(20, 101, 20):
        page.get_by_role("slider", name="Noise on Image").fill(str(noise))
        page.wait_for_timeout(150)
    page.locator(".verdict .strange").wait_for()
    assert "image is unlike the training data." in page.locator(".verdict").inner_text()
    assert "so it counts for less" in page.locator("[data-opinion=image]").inner_text()
    assert "Do not rely on 9 in 10 here" in page.locator(".condition").inner_text()
    assert page.evaluate(share) < before
    assert page.evaluate("window.shifted") < 0.01  # nothing jumps
    page.context.close()
