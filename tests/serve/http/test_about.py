"""What the service says of a model to people: the page at /model, the report, the card, texts in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mla_serve.bundle.about import About
from mla_serve.bundle.manifest import Bundle, write_manifest
from mla_serve.bundle.markdown import line_to_html, to_html
from mla_serve.serve.api import create_app
from mla_serve.serve.http.accept import prefers_html
from mla_serve.serve.http.openapi import row_counts
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.settings import Settings

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def serve(folder: Path) -> TestClient:
    settings = Settings(model=folder, device="cpu")
    return TestClient(create_app(open_predictor(settings), settings))


@pytest.fixture
def told(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """Write a bundle with texts, a report and a card."""
    folder = make_bundle(tmp_path / "told")
    manifest = Bundle.load(folder).manifest
    (folder / "report.html").write_text("<!doctype html><title>r</title><p>measured", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(
        "# tiny\n\n## Data\n\n| a | b |\n|---|---|\n| 1 | <b>2</b> |\n", encoding="utf-8"
    )
    about = About(purpose="For *tests*.", limits=["[lies](https://e.org)", "<script>1</script>"], licence="CC0")
    write_manifest(folder, manifest.model_copy(update={"about": about}))
    return folder


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        (CHROMIUM, True),
        (FIREFOX, True),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        ("text/html, application/json", False),
        ("application/json;q=0.9, text/html", True),
        ("application/json, text/html;q=0.9", False),
        ("application/*;q=0.2, text/html;q=0.3", True),
        ("text/html;q=0", False),
        ("text/html;q=0, */*", False),
        ("text/html; charset=utf-8 ; Q=0.8, */*;q=0.5", True),
        ("text/html;q=nan", False),
        ("text/html;q=2", False),
        ("text/html;q=", False),
        ("text/htmlx", False),
        (",;,=;q", False),
    ],
)
def test_accept_decides_between_the_page_and_the_json(accept: str, page: bool) -> None:
    assert prefers_html(accept) is page


def test_model_is_a_page_for_browsers_and_json_for_programs(told: Path) -> None:
    with serve(told) as client:
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            reply = client.get("/model", headers=headers)
            assert reply.json()["name"] == "told"
            assert reply.headers["vary"] == "Accept"
        reply = client.get("/model", headers={"Accept": CHROMIUM})
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.headers["vary"] == "Accept"
        assert 'href="model" aria-current="page"' in reply.text
        assert client.head("/model", headers={"Accept": CHROMIUM}).headers["content-type"].startswith("text/html")
        assert client.head("/model").headers["content-type"] == "application/json"
        assert client.post("/model", headers={"Accept": CHROMIUM}).status_code == 405


def test_the_texts_of_a_bundle_are_html_for_people(told: Path) -> None:
    with serve(told) as client:
        texts = client.get("/about.json").json()
        assert client.get("/model").json()["about"]["purpose"] == "For *tests*."
    assert texts["purpose"] == "<p>For <em>tests</em>.</p>\n"
    assert texts["limits"][0] == '<a href="https://e.org">lies</a>'
    assert texts["limits"][1] == "&lt;script&gt;1&lt;/script&gt;"
    assert texts["data"] == ""
    assert "<h1>" not in texts["card"]
    assert "<h2>Data</h2>" in texts["card"]
    assert "<td>&lt;b&gt;2&lt;/b&gt;</td>" in texts["card"]
    assert texts["report"] is True


def test_pages_that_need_no_key_hold_nothing_of_the_model(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    pages = []
    for name, classes in (("first", ["a", "b"]), ("second", ["c", "d", "e"])):
        with serve(make_bundle(tmp_path / name, {"text": "text"}, classes)) as client:
            paths = ("/", "/model", "/report", "/card", "/docs", "/web/about/about.js")
            pages.append([client.get(path, headers={"Accept": "text/html"}).content for path in paths])
    assert pages[0] == pages[1]


def test_a_report_is_served_in_a_sandbox(told: Path) -> None:
    with serve(told) as client:
        reply = client.get("/report.html")
        assert reply.text.endswith("<p>measured")
        policies = reply.headers.get_list("content-security-policy")
        assert len(policies) == 1
        directives = {part.split()[0]: part.split()[1:] for part in policies[0].split(";")}
        assert directives["default-src"] == ["'none'"]
        assert directives["sandbox"] == ["allow-popups"]
        assert "script-src" not in directives
        assert client.head("/report.html").status_code == 200


def test_a_bundle_without_report_and_card_has_pages_for_them(tiny_bundle: Path) -> None:
    with serve(tiny_bundle) as client:
        assert client.get("/report.html").status_code == 404
        assert [client.get(path).status_code for path in ("/report", "/card")] == [200, 200]
        texts = client.get("/about.json").json()
    assert texts == {"purpose": "", "limits": [], "data": "", "licence": "", "card": "", "report": False}


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](https://e.org/pixel.png)",
        "![x](data:image/png;base64,iVBORw0K)",
        "[x](/predict) [x](report.html) [x](//e.org/) [x](#predict)",
        "[x][1]\n\n[1]: //e.org/",
        '[x](https://e.org "\\" onmouseover=\\"alert(1)")',
        "<https://e.org/\"onmouseover='alert(1)'>",
        "```\n</code><script>alert(1)</script>\n```",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
    ],
)
def test_markdown_never_becomes_code(hostile: str) -> None:
    found: list[tuple[str, list[tuple[str, str | None]]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, attrs))  # type: ignore[method-assign]
    parser.feed(to_html(hostile) + line_to_html(hostile))
    assert {tag for tag, _ in found} <= {"p", "a", "pre", "code"}
    assert {name for _, attrs in found for name, _ in attrs} <= {"href", "title"}
    assert all(str(dict(attrs)["href"]).startswith("https:") for tag, attrs in found if tag == "a")


def test_how_many_rows_a_model_was_made_from(tiny_bundle: Path) -> None:
    """The counts of training are stored; of older bundles they are read from its notes. After a fit, others are measured."""
    manifest = Bundle.load(tiny_bundle).manifest
    notes = ["2000 rows for train", "500 rows for val", "7 rows for test", "12 rows for train were left out", "x"]
    noted = {"train": 2000, "val": 500, "test": 7}
    counts = {"train": 5, "val": 4, "test": 3}

    def rows(training: dict[str, object], metrics: dict[str, object]) -> dict[str, int]:
        return row_counts(manifest.model_copy(update={"training": training, "metrics": metrics}))

    assert rows({"notes": notes}, {}) == noted
    assert rows({"notes": notes, "counts": counts}, {}) == counts
    again = {"counts": counts, "recalibrated": {"rows": 60}}
    assert rows(again, {"rows": 300}) == {"train": 5, "val": 4, "test": 300}
    assert rows(again, {"rows": 60, "fitted": True}) == {"train": 5, "val": 4}
    assert rows({}, {}) == {}


def test_a_model_that_was_fitted_again_says_both_dates(told: Path) -> None:
    bundle = Bundle.load(told)
    with serve(told) as client:
        reply = client.get("/model").json()
    assert (reply["trained"], reply["fitted_again"]) == (bundle.manifest.created, None)
    again = {"trained": "2025-01-02T03:04:05+00:00", "versions": {"mla_serve": "9.9"}, "rows": 300, "split": "val"}
    write_manifest(told, bundle.manifest.model_copy(update={"training": {"recalibrated": again}}))
    with serve(told) as client:
        reply = client.get("/model").json()
    assert reply["trained"] == again["trained"]
    fit = {"date": bundle.manifest.created, "rows": 300, "split": "val", "mla_serve": "9.9"}
    assert reply["fitted_again"] == fit
    assert reply["created"] == bundle.manifest.created


def test_the_json_of_model_keeps_its_members(told: Path) -> None:
    with serve(told) as client:
        reply, document = client.get("/model").json(), client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["ModelDescription"]
    assert set(reply) == set(schema["properties"]) == set(schema["required"])
    assert json.dumps(reply["rows"]) == "{}"
    assert (reply["trained"], reply["fitted_again"]) == (reply["created"], None)


def test_the_date_of_a_fit_is_not_that_of_the_training(told: Path) -> None:
    manifest = Bundle.load(told).manifest
    again = {"trained": "2025-11-23T13:58:10+00:00", "rows": 120, "split": "val", "versions": {"mla_serve": "0.2.0"}}
    write_manifest(told, manifest.model_copy(update={"training": {"recalibrated": again}}))
    with serve(told) as client:
        reply = client.get("/model").json()
    assert reply["created"] == manifest.created
    assert reply["trained"] == again["trained"]
    assert reply["fitted_again"] == {"date": manifest.created, "rows": 120, "split": "val", "mla_serve": "0.2.0"}
    assert reply["versions"]["trained"]["mla_serve"] == "0.1.0"
