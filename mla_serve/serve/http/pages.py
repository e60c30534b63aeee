"""The pages for people: the playground at /, its samples, what the model is, the API's documentation, each problem.

Everything comes from this machine, and no page has a script or a style of its own, so that a text from a bundle can never
become code. Each path is an exact route (api.py), so that nothing a client sends becomes a path on the disk.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import Response

from mla_serve import palette
from mla_serve.bundle.manifest import Bundle
from mla_serve.inputs.media.formats import media_type
from mla_serve.serve.http.content_type import JSON
from mla_serve.serve.problems import PROBLEM_KINDS

WEB = Path(__file__).parents[1] / "web"
INDEX = "index.html"
HTML = "text/html"
MEDIA_TYPES = {
    ".html": f"{HTML}; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
NAVIGATION = {"./": "Try it", "model": "About this model", "report": "Report", "docs": "API"}
"""The pages, by their paths from the playground."""
# As for all pages (guard.py), and the report, which has styles of its own, in a frame without scripts.
REPORT_PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src data:; "
    "frame-src blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclasses.dataclass(frozen=True)
class Page:
    """What one path answers: content that is kept in memory, its media type, and headers of its own."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def page_response(page: Page, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response of a page. Browsers ask for it again each time, because another model may be served."""
    own = {"Cache-Control": "no-cache", **page.headers, **(headers or {})}
    return Response(page.content, headers=own, media_type=page.media_type)


def all_pages(bundle: Bundle) -> dict[str, Page]:
    """Return everything that is kept in memory for people, by its path."""
    return _playground() | _samples(bundle) | _shells() | {"/docs": _documentation()} | _problems()


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


def model_page() -> Page:
    """Write the page at /model, for those who prefer it to the JSON."""
    return _shell("About this model", "model", "about")


def _shells() -> dict[str, Page]:
    """Write the pages for the report and the card. As the one at /model they hold nothing of the model: scripts fetch it."""
    report = _shell("Report", "report", "report")
    return {
        "/report": dataclasses.replace(report, headers={"Content-Security-Policy": REPORT_PAGE_POLICY}),
        "/card": _shell("Model card", "card", "card"),
    }


def _shell(title: str, here: str, script: str) -> Page:
    body = '<main id="content" tabindex="-1"></main>'
    body += '<noscript><p class="notice">This page needs JavaScript.</p></noscript>'
    lede = "One moment: asking the service."
    styles, scripts = ["web/about/about.css"], [f"web/about/{script}.js"]
    return _page(title, body, lede=lede, here=here, styles=styles, scripts=scripts)


def _documentation() -> Page:
    """Write /docs. As the other pages for people it holds nothing of the model: a script reads openapi.json."""
    body = (
        '<main id="content" class="docs"></main><noscript><p class="notice">This page needs JavaScript. '
        'The same as a file: <a href="openapi.json">openapi.json</a>.</p></noscript>'
    )
    lede, styles = "One moment: reading the description of the API.", ["web/work/work.css", "web/docs/docs.css"]
    return _page("API", body, lede=lede, here="docs", styles=styles, scripts=["web/docs/page.js"])


def _problems() -> dict[str, Page]:
    """Explain each kind of problem at the path that is its type."""
    pages = {}
    for kind in PROBLEM_KINDS.values():
        body = (
            f'<main class="text"><p>{html.escape(kind.explanation)}</p>'
            f'<p class="hint">HTTP status {kind.status}, type <code>{kind.type}</code>. '
            '<a href="../docs">All requests and errors</a></p></main>'
        )
        pages[kind.type] = _page(kind.title, body, lede="What this error of the service means", root="../")
    return pages


def navigation(here: str = "", root: str = "") -> str:
    """Write the links to all pages, the same on each. Args: here, the page's own path; root, see `_page`."""
    current = {here: ' aria-current="page"'}
    links = [f'<a href="{root}{path}"{current.get(path, "")}>{name}</a>' for path, name in NAVIGATION.items()]
    return f'<nav class="pages" aria-label="Pages">{"".join(links)}</nav>'


def _page(
    title: str,
    body: str,
    *,
    lede: str = "",
    here: str = "",
    root: str = "",
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
) -> Page:
    """Write a page in the dress of the playground: the same colours, head and navigation.

    Args: title, lede: any text, above the page; body, HTML below them; here, the page's own path in NAVIGATION; root, the
    relative path from the page to the playground; styles, scripts: further files.
    """
    links = [f'<link rel="stylesheet" href="{root}{path}">' for path in ("web/palette.css", "web/style.css", *styles)]
    code = [f'<script type="module" src="{root}{path}"></script>' for path in scripts]
    text = (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="{root}web/icon.svg">{"".join((*links, *code))}'
        f"<title>{html.escape(title)}</title></head>\n<body>\n"
        f'<header class="page-head"><div><h1 id="name">{html.escape(title)}</h1><div id="lede"><p>{html.escape(lede)}</p></div></div>'
        f"{navigation(here, root)}</header>\n{body}\n</body>\n</html>\n"
    )
    return Page(text.encode(), MEDIA_TYPES[".html"])
