"""The answer, told: every number on the panel is that of the reply or of GET /model, and every sentence is true of them."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mla_serve.decimals import percent
from mla_serve.fusion.intervals import Intervals, Thresholds
from mla_serve.tasks import Classes
from tests.browser.harness import draw, open_page, serving
from tests.browser.test_playground import SEVEN, card, wait_for_opinions, wav
from tests.conftest import subsets

PATIENCE_MS = 20_000
NAMES = {"photo": "image", "sound_track": "audio", "description": "text"}
LABELS = ("wireless_bluetooth_headphones", "mug", *(f"class {at}" for at in range(28)))
PATTERNS = ["+".join(names) for names in subsets(list(NAMES))]
ACCURACIES = dict(zip(PATTERNS, (0.81, 0.634, 0.716, 0.87, 0.99, 0.7, 1.0), strict=True))
METRICS = {
    "split": "test",
    "conditions": {name: {"calibrated": {"accuracy": accuracy}} for name, accuracy in ACCURACIES.items()},
    "condition_rows": dict.fromkeys(PATTERNS, 1500),
    "intervals": {name: {"accuracy": [accuracy - 0.02, accuracy]} for name, accuracy in ACCURACIES.items()},
}


@pytest.fixture(scope="module")
def address(
    playwright: Any, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve a model with long labels, a record, and sets of a few of its classes."""
    folder, task = tmp_path_factory.mktemp("told"), Classes(LABELS)
    scores = Thresholds.of(np.linspace(0.5, 1, 99))
    intervals = Intervals(task, {"calibrated": dict.fromkeys(PATTERNS, scores)})
    bundle = make_bundle(folder / "shop", NAMES, task=task, intervals=intervals, metrics=METRICS)
    with serving(bundle, folder / "log") as address:
        yield address


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page; fails when the page itself logs an error."""
    pages: list[Any] = []
    failures: list[str] = []

    def open_it(size: tuple[int, int] = (1280, 900), **options: Any) -> Any:
        page = open_page(browser, address, viewport={"width": size[0], "height": size[1]}, **options)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: failures.append(str(error)))
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        page.context.close()
    assert not failures


def title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def last_reply(page: Any, action: Callable[[], object]) -> dict[str, Any]:
    """Return the reply to the request that an action causes, once it is shown."""
    page.wait_for_timeout(300)  # nothing is on its way any more
    with page.expect_response("**/predict") as reply:
        action()
    page.wait_for_selector(".answer:not(.stale):not(.empty)")
    content: dict[str, Any] = reply.value.json()
    return content


def give(page: Any, name: str) -> None:
    """Fill in one input."""
    if name == "description":
        page.get_by_role("textbox", name="Description").fill("seven")
    elif name == "photo":
        draw(page, SEVEN, "photo")
    else:
        card(page, name).locator("input[type=file]").set_input_files(wav())


def change_replies(page: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    page.route("**/predict", lambda route: route.fulfill(json=change(route.fetch().json())))


def spaced(text: str) -> str:
    return " ".join(text.split())


def said(page: Any, selector: str) -> str:
    return spaced(page.locator(selector).inner_text())


def check_numbers(page: Any, reply: dict[str, Any], model: dict[str, Any]) -> None:
    """Compare everything on the panel with the reply and with GET /model."""
    names, p = list(reply["modalities"]), reply["probability"]
    assert page.locator(".label").inner_text().replace("\n", "") == reply["label"]
    assert page.locator(".headline .probability").inner_text() == percent(p)
    for name, own in reply["modalities"].items():
        assert page.locator(f"[data-share={name}]").get_attribute("title") == f"{title(name)} {percent(own['weight'])}"
        expected = f"says {own['label']} · {percent(own['probability'])}"
        row = said(page, f"[data-opinion={name}]")
        assert expected in row
        if len(names) == 1:
            assert (own["label"], own["probability"]) == (reply["label"], p)  # one input alone is the answer
            assert "The only thing sent." in row
        else:
            assert ("agrees" in row, "differs" in row) == ((same := own["label"] == reply["label"]), not same)
            named = reply["label"] if len(reply["label"]) <= 20 else "the answer"
            left = percent(p * math.exp(-own["influence"]))
            less = "Without it: the same." if left == percent(p) else f"Without it, {named} would have {left}."
            assert less in row
        facts = spaced(page.locator(f"[data-facts={name}]").text_content())
        sign = "−" if own["influence"] < 0 else "+"
        influence = f"{abs(own['influence']):.2f}"
        assert f"weight {percent(own['weight'])}" in facts
        assert f"entropy {own['entropy']:.2f}" in facts
        assert f"influence {sign if float(influence) else ''}{influence}" in facts
    check_shortlist(page, reply)
    check_record(page, names, reply["missing"], model["metrics"])
    assert f"Entropy of the answer: {reply['entropy']:.2f} nats." in page.locator(".numbers > .hint").text_content()


def check_shortlist(page: Any, reply: dict[str, Any]) -> None:
    inside = reply["prediction_set"]["labels"]
    shown = reply["probabilities"][: max(4, min(8, len(inside)))]
    assert page.locator(".bars .name").all_inner_texts() == [each["label"] for each in shown]
    assert page.locator(".bars .value").all_inner_texts() == [percent(each["probability"]) for each in shown]
    assert page.locator(".bars .in-set").count() == min(8, len(inside))
    left = max(0.0, 1 - sum(each["probability"] for each in shown))
    assert f"{len(LABELS) - len(shown)} others, together {percent(left)}" in said(page, ".rest")
    some = f"{len(inside)} of {len(LABELS)}" if len(inside) < len(LABELS) else f"all {len(LABELS)}"
    assert said(page, ".promised") == f"Shortlist: {f'only {inside[0]}' if len(inside) == 1 else some}"
    basis = f"Coverage 90.0 %, from {reply['prediction_set']['rows']} validation rows"
    assert basis in page.locator(".numbers > .hint").text_content()


def check_record(page: Any, names: list[str], missing: list[str], metrics: dict[str, Any]) -> None:
    def accuracy(names: set[str]) -> tuple[float, str]:
        condition = "+".join(name for name in NAMES if name in names)
        measured: float = metrics["conditions"][condition]["calibrated"]["accuracy"]
        return measured, condition

    right, condition = accuracy(set(names))
    low, high = metrics["intervals"][condition]["accuracy"]
    if right == 1:
        assert "it was right on 1,500 of 1,500 test rows." in said(page, ".record")
    else:
        likely = f"(likely {percent(low)} to {percent(high)})"
        assert f"it was right on {percent(right)} of 1,500 test rows {likely}." in said(page, ".record")
    assert page.locator(".record a").get_attribute("href") == "report"
    assert page.locator(".ghost").count() == len(missing)
    for name in missing:
        more, _ = accuracy({*names, name})
        expected = "1,500 of 1,500" if more == 1 else percent(more)
        less = "" if more > right else ", no better than without it"
        assert f"too, it was right on {expected}{less}. Add {name.replace('_', ' ')}" in said(
            page, f"[data-ghost={name}]"
        )


def test_every_number_is_that_of_the_reply_and_of_the_model(opened: Callable[..., Any], address: str) -> None:
    page = opened()
    with urllib.request.urlopen(urllib.request.Request(f"{address}model", headers={"Accept": "application/json"})) as r:
        model = json.load(r)
    given: list[str] = []
    for name in ("description", "photo", "sound_track"):
        given.append(name)
        give(page, name)
        wait_for_opinions(page, *(each for each in NAMES if each in given))
        reply = last_reply(page, lambda: page.get_by_role("textbox", name="Description").fill("eight" * len(given)))
        assert list(reply["modalities"]) == [each for each in NAMES if each in given]
        check_numbers(page, reply, model)


@pytest.mark.parametrize(
    ("p", "differing", "influence", "expected"),
    [
        (0.97, [], 0.1, "Sure. All three agree; any one could be left out."),
        (0.97, [], 0.4, "Sure. All three agree."),  # 65 % would be left: not fairly sure
        (0.97, ["photo"], 0.1, "Sure, but they disagree: photo says otherwise."),
        (0.5, ["photo"], 0.0, "Unsure, and they disagree: photo says otherwise."),
        (
            0.97,
            ["photo", "sound_track"],
            {"description": 1.0},
            "Sure, but they disagree: photo and sound track say otherwise."
            " It rests on description: without it the answer might be another.",
        ),
        (
            0.97,
            ["photo"],
            {"description": 5.0, "sound_track": 4.0},
            "Sure, but they disagree: photo says otherwise."
            " It rests on sound track and description: without one of them the answer would be another.",
        ),
        (0.97, list(NAMES), 0.1, "Sure, but they disagree; none of them says so by itself."),
    ],
)
def test_whether_the_inputs_agree_is_said(
    opened: Callable[..., Any], p: float, differing: list[str], influence: float | dict[str, float], expected: str
) -> None:
    page = opened()

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        own = {"weight": 1 / 3, "entropy": 0.1, "probability": 0.9}
        owed = influence if isinstance(influence, dict) else dict.fromkeys(NAMES, influence)
        opinions = {
            name: own | {"label": "other" if name in differing else "mug", "influence": owed.get(name, 0.0)}
            for name in NAMES
        }
        shortlist = reply["prediction_set"] | {"labels": ["mug"]}
        return reply | {
            "label": "mug",
            "probability": p,
            "prediction_set": shortlist,
            "modalities": opinions,
            "missing": [],
        }

    change_replies(page, change)
    give(page, "description")
    wait_for_opinions(page, *NAMES)
    assert said(page, ".verdict") == expected
    assert page.locator(".mark.no").count() == len(differing)


@pytest.mark.parametrize(
    ("probability", "inside", "expected"),
    [
        (0.95, 1, "Sure."),
        (0.8, 2, "Fairly sure."),
        (0.41, 3, "Unsure between three."),
        (0.41, 9, "Unsure."),
        (0.1, 29, "Guessing."),
    ],
)
def test_certainty_is_said_in_words(opened: Callable[..., Any], probability: float, inside: int, expected: str) -> None:
    page = opened()
    change_replies(
        page,
        lambda reply: (
            reply
            | {
                "probability": probability,
                "prediction_set": reply["prediction_set"] | {"labels": list(LABELS[:inside])},
            }
        ),
    )
    give(page, "description")
    wait_for_opinions(page, "description")
    assert said(page, ".verdict") == f"{expected} It rests on description alone."
    assert "strange" not in page.locator(".condition").get_attribute("class")
    assert said(page, ".condition") == (
        "The shortlist holds the right answer 9 in 10 times, on average, for inputs like those it was measured with."
    )


def test_a_strange_input_is_named_and_nothing_is_promised(opened: Callable[..., Any]) -> None:
    page = opened((390, 844))

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        opinions = {name: own | {"unfamiliarity": 0.994} for name, own in reply["modalities"].items()}
        return reply | {"modalities": opinions, "probability": 0.97}

    change_replies(page, change)
    give(page, "description")
    wait_for_opinions(page, "description")
    assert said(page, ".verdict").startswith("Sure, but description is unlike the training data. ")
    assert said(page, ".record").startswith(
        "On inputs like the training data, with description alone, it was right on "
    )
    assert "Stranger than 99.4 % of known inputs." in said(page, "[data-opinion=description]")
    assert said(page, ".condition").startswith("Do not rely on 9 in 10 here")
    assert "strange description" in said(page, ".answer-bar")
    assert "unfamiliar 99.4 %" in spaced(page.locator("[data-facts=description]").text_content())


def test_weights_that_do_not_sum_to_one_are_shown_as_they_are(opened: Callable[..., Any]) -> None:
    page = opened()
    give(page, "photo")
    give(page, "description")
    wait_for_opinions(page, "photo", "description")
    page.get_by_text("Numbers and rule").click()
    reply = last_reply(page, lambda: page.get_by_label("Fusion rule").select_option("energy"))
    weights = {name: own["weight"] for name, own in reply["modalities"].items()}
    assert abs(sum(weights.values()) - 1) > 0.005
    for name, weight in weights.items():
        assert said(page, f"[data-share={name}]") == f"{title(name)} {percent(weight)}"
    assert f"Weights, {percent(sum(weights.values()))} in all" in said(page, ".answer section h3")
    assert said(page, ".promised") == "No shortlist under this rule"
    assert not page.locator(".condition").is_visible()
    assert not page.locator(".record").is_visible()  # this rule was not measured


def test_what_a_part_of_the_bar_cannot_hold_is_said_at_the_input(opened: Callable[..., Any]) -> None:
    page = opened((390, 844))
    weights = {"photo": 0.6, "sound_track": 0.27, "description": 0.13}

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        own = next(iter(reply["modalities"].values()))
        opinions = {name: own | {"weight": weight} for name, weight in weights.items()}
        return reply | {"modalities": opinions, "missing": []}

    change_replies(page, change)
    give(page, "description")
    wait_for_opinions(page, *NAMES)
    shown = [said(page, f"[data-share={name}] > :first-child") for name in weights]
    assert shown == ["Photo 60.0 %", "27.0 %", ""]
    cut = "[...document.querySelectorAll('.shares li')].filter(li => li.scrollWidth > li.clientWidth).length"
    assert page.evaluate(cut) == 0
    assert "Its share: 13.0 %." in said(page, "[data-opinion=description]")
    assert "Its share" not in said(page, "[data-opinion=photo]")


def test_the_interval_of_a_record_is_that_of_the_usual_rule_only(opened: Callable[..., Any]) -> None:
    page = opened()
    page.goto("about:blank")

    def change(route: Any) -> None:
        model = route.fetch().json()
        for rules in model["metrics"]["conditions"].values():
            rules["mean_logit"] = {"accuracy": 0.5}
        route.fulfill(json=model)

    page.route("**/model", change)
    page.go_back()
    page.wait_for_load_state("networkidle")
    give(page, "photo")
    wait_for_opinions(page, "photo")
    assert "it was right on 81.0 % of 1,500 test rows (likely " in said(page, ".record")
    page.get_by_text("Numbers and rule").click()
    last_reply(page, lambda: page.get_by_label("Fusion rule").select_option("mean_logit"))
    assert "it was right on 50.0 % of 1,500 test rows. Report" in said(page, ".record")


def test_how_often_the_shortlist_is_right_can_be_chosen(opened: Callable[..., Any]) -> None:
    page = opened()
    give(page, "description")
    wait_for_opinions(page, "description")
    for text, coverage in (("8 in 10", 0.8), ("99 in 100", 0.99)):
        reply = last_reply(page, partial(page.get_by_label("How often the shortlist").select_option, text))
        assert reply["prediction_set"]["coverage"] == coverage
        assert said(page, ".condition").startswith(f"The shortlist holds the right answer {text} times,")
        assert f"Coverage {percent(coverage)}" in page.locator(".numbers > .hint").text_content()


def test_a_long_shortlist_is_asked_for_when_it_is_wanted(opened: Callable[..., Any]) -> None:
    page = opened()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if "predict" in request.url else None)

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        return reply | {"prediction_set": reply["prediction_set"] | {"labels": list(LABELS[:27])}}

    change_replies(page, change)
    give(page, "description")
    wait_for_opinions(page, "description")
    assert page.locator(".bars li").count() == 8
    reply = last_reply(page, lambda: page.get_by_role("button", name="Show them").click())
    assert len(reply["probabilities"]) == 27
    assert ["top_k" in body for body in sent][-2:] == [False, True]
    assert page.locator(".bars li").count() == 27
    assert page.evaluate("document.activeElement.textContent") == "Show fewer"
    page.keyboard.press("Enter")
    assert page.locator(".bars li").count() == 8


def test_an_error_replaces_the_answer_and_offers_to_leave_the_input_out(opened: Callable[..., Any]) -> None:
    page = opened((390, 844))
    give(page, "photo")
    give(page, "description")
    wait_for_opinions(page, "photo", "description")
    problem = {"title": "This input cannot be read", "status": 422, "detail": "got 2 words", "field": "description"}
    page.route("**/predict", lambda route: route.fulfill(status=422, json=problem), times=1)
    page.get_by_role("textbox", name="Description").fill("eight")
    page.locator(".notice").wait_for()
    assert "Description cannot be used as it is. Got 2 words." in said(page, ".notice")
    assert not page.locator(".details").is_visible()
    assert not page.locator("#code").is_visible()  # it would show the request before
    assert said(page, ".headline").startswith("? No answer")
    assert said(page, ".answer-bar") == "No answer Description cannot be used"
    page.locator(".notice").get_by_role("button", name="Leave it out").click()
    wait_for_opinions(page, "photo")
    assert not page.locator(".notice").is_visible()
    assert page.locator("#code").is_visible()
    page.get_by_role("button", name="Clear Photo").click()
    page.wait_for_selector(".answer.empty")  # the description is left out already
    assert not page.locator("#code").is_visible()


def test_while_the_service_is_busy_the_answer_is_said_to_be_an_old_one(opened: Callable[..., Any]) -> None:
    page = opened()
    give(page, "description")
    wait_for_opinions(page, "description")
    busy = {"status": 503, "json": {"title": "Busy", "status": 503}, "headers": {"Retry-After": "30"}}
    page.route("**/predict", lambda route: route.fulfill(**busy), times=1)
    page.get_by_role("textbox", name="Description").fill("eight")
    page.locator(".notice").wait_for()
    assert said(page, ".notice").endswith("The answer below is to what you sent before. Try again now")
    assert page.locator(".answer.stale .details").is_visible()
    page.get_by_role("button", name="Try again now").click()
    wait_for_opinions(page, "description")
    assert not page.locator(".notice").is_visible()


def test_an_input_that_was_not_sent_leads_to_its_card(opened: Callable[..., Any]) -> None:
    page = opened()
    give(page, "photo")
    wait_for_opinions(page, "photo")
    page.get_by_role("button", name="Add description").click()
    assert page.evaluate("document.activeElement.closest('.card').dataset.modality") == "description"


def test_nothing_jumps_while_one_plays(opened: Callable[..., Any]) -> None:
    page = opened()
    give(page, "photo")
    give(page, "description")
    wait_for_opinions(page, "photo", "description")
    places = set()
    for text in ("seven", "nine", "a much longer text than before"):
        last_reply(page, partial(page.get_by_role("textbox", name="Description").fill, text))
        places.add(
            page.evaluate(
                "[...document.querySelectorAll('.record, .shares')].map(e => e.offsetTop - document.querySelector('.headline').offsetHeight).join()"
            )
        )
    assert len(places) == 1


def test_a_phone_tells_the_same_at_its_foot(opened: Callable[..., Any]) -> None:
    page = opened((390, 844))
    give(page, "description")
    wait_for_opinions(page, "description")
    give(page, "photo")
    wait_for_opinions(page, "photo", "description")
    reply = last_reply(page, lambda: page.get_by_role("textbox", name="Description").fill("nine"))
    bar = said(page, ".answer-bar")
    assert bar.startswith(f"{reply['label']} {percent(reply['probability'])} · ")
    agree = all(own["label"] == reply["label"] for own in reply["modalities"].values())
    assert bar.endswith("both agree" if agree else "they disagree")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(opened: Callable[..., Any], axe: str, scheme: str) -> None:
    page = opened((390, 844), color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)

    def change(reply: dict[str, Any]) -> dict[str, Any]:
        opinions = {name: own | {"unfamiliarity": 1.0} for name, own in reply["modalities"].items()}
        shortlist = reply["prediction_set"] and reply["prediction_set"] | {"labels": list(LABELS[:12])}
        return reply | {"modalities": opinions, "prediction_set": shortlist}

    change_replies(page, change)
    page.evaluate(axe)
    for name in ("photo", "description"):
        give(page, name)
    wait_for_opinions(page, "photo", "description")
    page.get_by_text("Numbers and rule").click()
    page.get_by_role("button", name="Show them").click()
    page.locator(".bars.scrolls").wait_for()
    found = page.evaluate("axe.run()")["violations"]
    last_reply(page, lambda: page.get_by_label("Fusion rule").select_option("energy"))
    found += page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found] == []
