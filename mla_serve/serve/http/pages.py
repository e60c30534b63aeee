"""The pages for people: the playground at /, its samples, the API's documentation, an explanation of each problem.

Everything comes from this machine, and no page has a script or a style of its own, so that a text from a bundle can never
become code. Each path is an exact route (api.py), so that nothing a client sends becomes a path on the disk.
"""

from __future__ import annotations

import dataclasses
import html
import importlib.metadata
from pathlib import Path
from typing import Any

import orjson

from mla_serve import palette
from mla_serve.bundle.manifest import Bundle
from mla_serve.inputs.media.formats import media_type
from mla_serve.serve.http.content_type import JSON
from mla_serve.serve.problems import PROBLEM_KINDS

WEB = Path(__file__).parents[1] / "web"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
SWAGGER = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css"}


@dataclasses.dataclass(frozen=True)
class Page:
    """What one path answers: content that is kept in memory, and its media type."""

    content: bytes
    media_type: str


def all_pages(bundle: Bundle, title: str) -> dict[str, Page]:
    """Return everything that is kept in memory for people, by its path. Args: title, that of the documentation."""
    return _playground() | _samples(bundle) | {"/docs": _documentation(title)} | _problems()


def swagger_files() -> dict[str, Path]:
    """Return the copy of Swagger UI among the files of the installed BentoML, by path; empty where there is none."""
    try:
        installed = importlib.metadata.files("bentoml") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    found = {f"/docs/{path.name}": Path(str(path.locate())) for path in installed if path.name in SWAGGER.values()}
    return found if len(found) == len(SWAGGER) and all(path.is_file() for path in found.values()) else {}


def _playground() -> dict[str, Page]:
    """Return the page at /, each of its files at /web/PATH, and the colours that it shares with the report."""
    files = {f"/web/{path.relative_to(WEB).as_posix()}": path for path in sorted(WEB.rglob("*"))}
    files |= {"/": files.pop(f"/web/{INDEX}"), f"/web/{palette.STYLE.name}": palette.STYLE}
    return {
        name: Page(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for name, path in files.items()
        if path.suffix in MEDIA_TYPES
    }


def _samples(bundle: Bundle) -> dict[str, Page]:
    """Return the golden samples: a list at /samples of {"inputs": {modality: payload}, "truth": the label, null if unknown}.

    A file is the path where its content is.
    """
    pages, listed = {}, []
    for index, (sample, golden) in enumerate(zip(bundle.golden_samples(), bundle.manifest.golden, strict=True)):
        inputs: dict[str, Any] = {}
        for name, payload in sample.items():
            inputs[name] = payload
            if isinstance(payload, bytes):
                inputs[name] = f"samples/{index}/{name}"
                pages[f"/{inputs[name]}"] = Page(payload, media_type(payload))
        listed.append({"inputs": inputs, "truth": golden.truth})
    return pages | {"/samples": Page(orjson.dumps(listed), JSON)}


def _documentation(title: str) -> Page:
    """Write /docs, which starts Swagger UI, or links to openapi.json where there is no Swagger UI.

    docs.js starts it, and sends a key along where one is needed.
    """
    sources = [path[1:] for path in swagger_files()]
    links = [f'<link rel="stylesheet" href="{source}">' for source in sources if source.endswith(".css")]
    scripts = [source for source in sources if source.endswith(".js")]
    head = [*links, *(f'<script defer src="{source}"></script>' for source in (*scripts, "web/docs.js"))]
    body = f'{"".join(head)}<main id="swagger-ui"><a href="openapi.json">The description of this API</a></main>'
    return _page(title, body)


def _problems() -> dict[str, Page]:
    """Explain each kind of problem at the path that is its type."""
    pages = {}
    for kind in PROBLEM_KINDS.values():
        body = (
            f'<link rel="stylesheet" href="../web/palette.css"><link rel="stylesheet" href="../web/style.css"><main><h1>{html.escape(kind.title)}</h1>'
            f"<p>{html.escape(kind.explanation)}</p>"
            f"<p>HTTP status {kind.status}, type <code>{kind.type}</code></p></main>"
        )
        pages[kind.type] = _page(kind.title, body, "../")
    return pages


def _page(title: str, content: str, root: str = "") -> Page:
    """Write a page. Args: title, any text; content, HTML; root, the relative path from the page to the playground."""
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="{root}web/icon.svg">'
        f"<title>{html.escape(title)}</title></head><body>{content}</body></html>\n"
    )
    return Page(text.encode(), MEDIA_TYPES[".html"])
