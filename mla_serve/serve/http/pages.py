"""What people look at: the playground at /, its ready-made samples, the API's documentation, what each problem means.

All from this machine, and no page has a script or a style of its own: what a bundle says can never become one.

Every path is an exact route: nothing that a client sends becomes a path on the disk.
"""

from __future__ import annotations

import functools
import html
import importlib.metadata
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from mla_serve.bundle.manifest import Bundle
from mla_serve.serve.http.content_type import JSON
from mla_serve.serve.problems import KINDS

WEB = Path(__file__).parents[1] / "web"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# How files that a browser can show begin, to tell their type without decoding them.
BEGINNINGS = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"RIFF": "audio/wav",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
}
SWAGGER = {"swagger-ui-bundle.js": "js", "swagger-ui.css": "css"}


def add_pages(app: FastAPI, bundle: Bundle) -> None:
    """Add the routes of everything that is for people."""
    _add_playground(app)
    _add_samples(app, bundle)
    _add_docs(app)
    _add_problems(app)


def media_type(content: bytes) -> str:
    """Tell a file's media type from its first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    known = (kind for beginning, kind in BEGINNINGS.items() if content.startswith(beginning))
    return next(known, "application/octet-stream")


def _add_playground(app: FastAPI) -> None:
    """Serve the page at / and each of its files at web/NAME, from memory."""
    for path in sorted(WEB.iterdir()):
        if path.suffix in MEDIA_TYPES:
            route = "/" if path.name == INDEX else f"/web/{path.name}"
            _add_content(app, route, path.read_bytes(), MEDIA_TYPES[path.suffix])


def _add_samples(app: FastAPI, bundle: Bundle) -> None:
    """Serve the golden samples: a list at /samples, files each at a path of their own."""
    listed = []
    for index, sample in enumerate(bundle.golden_samples()):
        entry: dict[str, Any] = {}
        for name, payload in sample.items():
            entry[name] = payload
            if isinstance(payload, bytes):
                entry[name] = f"samples/{index}/{name}"
                _add_content(app, f"/{entry[name]}", payload, media_type(payload))
        listed.append(entry)
    _add_content(app, "/samples", orjson.dumps(listed), JSON)


def _add_docs(app: FastAPI) -> None:
    """Serve Swagger UI at /docs, from BentoML's copy; where that is not there, the page leads to the description.

    docs.js starts it, and sends a key along where one is asked for.
    """
    assets = _swagger_assets()
    links = [f'<link rel="stylesheet" href="docs/{assets["css"].name}">'] if assets else []
    scripts = [f"docs/{assets['js'].name}"] if assets else []
    head = [*links, *(f'<script defer src="{source}"></script>' for source in (*scripts, "web/docs.js"))]
    body = f'{"".join(head)}<main id="swagger-ui"><a href="openapi.json">The description of this API</a></main>'
    _add_content(app, "/docs", _page(app.title, body), MEDIA_TYPES[".html"])
    for path in assets.values():
        app.add_route(f"/docs/{path.name}", functools.partial(_send_file, path), include_in_schema=False)


def _add_problems(app: FastAPI) -> None:
    """Explain each kind of problem at its type."""
    for kind in KINDS.values():
        body = (
            f'<link rel="stylesheet" href="../web/style.css"><main><h1>{html.escape(kind.title)}</h1>'
            f"<p>{html.escape(kind.explanation)}</p>"
            f"<p>HTTP status {kind.status}, type <code>{kind.type}</code></p></main>"
        )
        _add_content(app, kind.type, _page(kind.title, body, "../"), MEDIA_TYPES[".html"])


def _page(title: str, content: str, root: str = "") -> bytes:
    """Write a page. Args: title, any text; content, HTML; root, the relative path from the page to the playground."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="{root}web/icon.svg">'
        f"<title>{html.escape(title)}</title></head><body>{content}</body></html>\n"
    ).encode()


def _add_content(app: FastAPI, route: str, content: bytes, kind: str) -> None:
    async def send(_: Request) -> Response:
        return Response(content, headers={"Cache-Control": "no-cache"}, media_type=kind)

    app.add_route(route, send, include_in_schema=False)


async def _send_file(path: Path, _: Request) -> Response:
    return FileResponse(path, headers={"Cache-Control": "max-age=86400"})


def _swagger_assets() -> dict[str, Path]:
    """Find the copy of Swagger UI among the files of the installed BentoML; empty when there is none."""
    try:
        installed = importlib.metadata.files("bentoml") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    found = {SWAGGER[path.name]: Path(str(path.locate())) for path in installed if path.name in SWAGGER}
    return found if len(found) == len(SWAGGER) and all(path.is_file() for path in found.values()) else {}
