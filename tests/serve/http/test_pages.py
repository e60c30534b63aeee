"""The routes for people: the files of the page and the bundle's samples."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mla_serve.bundle.manifest import Bundle
from mla_serve.serve.api import create_app
from mla_serve.serve.http.pages import NAVIGATION, WEB, navigation
from mla_serve.serve.models.open_predictor import open_predictor
from mla_serve.serve.problems import PROBLEM_KINDS
from mla_serve.serve.settings import Settings
from mla_serve.tasks import TASKS


@pytest.fixture
def client(tiny_bundle: Path) -> TestClient:
    settings = Settings(model=tiny_bundle, device="cpu")
    return TestClient(create_app(open_predictor(settings), settings))


def test_every_file_that_the_page_names_is_served(client: TestClient) -> None:
    names = set(re.findall(r'(?:href|src)="(web/[^"]+)"', client.get("/").text))
    for path in WEB.rglob("*.js"):
        content = path.read_text(encoding="utf-8")
        found = [(path.parent / name).resolve() for name in re.findall(r'(?:from |import\()"([\w./]+)"', content)]
        names |= {f"web/{each.relative_to(WEB).as_posix()}" for each in found}
        names |= set(re.findall(r'"(web/[\w./]+)"', content))
    assert len(names) >= 10
    assert all(client.get(f"/{name}").status_code == 200 for name in names)
    assert client.get("/web/app.js").headers["content-type"].startswith("text/javascript")


def test_every_page_has_the_same_navigation_and_colours(client: TestClient) -> None:
    def links(text: str) -> list[tuple[str, str]]:
        nav = text.partition('<nav class="pages" aria-label="Pages">')[2].partition("</nav>")[0]
        assert "<nav" not in text.replace('<nav class="pages"', "", 1)
        return re.findall(r'<a href="([^"]+)"[^>]*>([^<]+)</a>', nav)

    for path in ("/", "/docs", *(kind.type for kind in PROBLEM_KINDS.values())):
        page = client.get(path).text
        root = "../" if path.startswith("/problems/") else ""
        assert links(page) == [(f"{root}{to}", name) for to, name in NAVIGATION.items()]
        assert f'<link rel="stylesheet" href="{root}web/palette.css">' in page
        assert page.count(' aria-current="page"') == (not root)
    assert 'href="docs" aria-current="page"' in client.get("/docs").text
    assert 'href="./" aria-current="page"' in navigation("./")


def test_the_page_holds_no_inline_code_and_no_address_elsewhere() -> None:
    for path in filter(Path.is_file, WEB.rglob("*")):
        content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in content, path
        assert not re.search(r"<style|<script[^>]*>\s*[^<\s]|style=|onclick=", content), path


@pytest.mark.parametrize(
    ("file", "registry"),
    [("answer/panel", "VIEWS"), ("purpose", "PURPOSES"), ("work/snippets", "PRINTED"), ("work/snippets", "PROMISED")],
)
def test_the_page_knows_every_task(file: str, registry: str) -> None:
    content = (WEB / f"{file}.js").read_text(encoding="utf-8")
    body = content.partition(f"const {registry} = {{")[2].partition("};")[0]
    assert re.findall(r"(?:^|[{,])\s*(\w+):", body) == list(TASKS)


@pytest.mark.parametrize(("file", "registry"), [("measure", "MEASURES"), ("tiles", "TILES")])
def test_the_page_about_the_model_knows_every_task(file: str, registry: str) -> None:
    content = (WEB / "about" / f"{file}.js").read_text(encoding="utf-8")
    body = content.partition(f"const {registry} = {{")[2].partition("\n};")[0]
    assert re.findall(r"^  (\w+): ", body, re.MULTILINE) == list(TASKS)


def test_samples_are_the_bundles_golden_ones(client: TestClient, tiny_bundle: Path) -> None:
    listed = client.get("/samples").json()
    for sample, entry in zip(Bundle.load(tiny_bundle).golden_samples(), listed, strict=True):
        for name, payload in sample.items():
            sent = entry["inputs"][name]
            assert (client.get(f"/{sent}").content if isinstance(payload, bytes) else sent) == payload


@pytest.mark.parametrize("path", ["/samples/9/image", "/samples/0/text", "/samples/0/..%2f..", "/web/..%2fpages.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><script>alert(1)</script>",
    "'+alert(1)+'",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_pages_hold_no_text_of_a_bundle(make_bundle: Callable[..., Path], tmp_path: Path, hostile: str) -> None:
    folder = make_bundle(tmp_path / "hostile", classes=[hostile, "b"], name=hostile)
    settings = Settings(model=folder, device="cpu")
    with TestClient(create_app(open_predictor(settings), settings)) as client:
        assert client.get("/model").json()["name"] == hostile
        for path in ("/", "/docs", *(kind.type for kind in PROBLEM_KINDS.values())):
            page = client.get(path).text
            assert "<img" not in page
            assert not re.search(r"<script(?![^>]* src=\"web/[\w./-]+\"></script>)", page)
            assert not re.search(r"<style|<[^>]*(?:style=|\bon\w+=)", page)
            assert html.escape(hostile) not in page  # pages need no key, so they hold nothing of the model
