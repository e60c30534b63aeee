"""What people look at: the playground at /, its ready-made samples, and the API's documentation. All from this machine.

Every path is an exact route: nothing that a client sends becomes a path on the disk.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from mla_serve.bundle import Bundle
from mla_serve.serve.describe import JSON

WEB = Path(__file__).parent / "web"
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
SWAGGER = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css"}


def add_pages(app: FastAPI, bundle: Bundle) -> None:
    """Add the routes of everything that is for people."""
    _add_playground(app)
    _add_samples(app, bundle)
    _add_docs(app)


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
    """Serve Swagger UI at /docs; nothing of it is loaded from elsewhere when BentoML's copy is there.

    Where keys are asked for, docs.js sends one along: Swagger UI itself fetches its description without.
    """
    assets = _swagger_assets()
    urls: dict[str, Any] = {f"swagger_{kind}_url": f"docs/{path.name}" for kind, path in assets.items()}
    docs = get_swagger_ui_html(openapi_url="openapi.json", title=app.title, swagger_favicon_url="web/icon.svg", **urls)
    page = bytes(docs.body).replace(b"</head>", b'<script src="web/docs.js"></script></head>', 1)
    _add_content(app, "/docs", page, MEDIA_TYPES[".html"])
    for path in assets.values():
        app.add_route(f"/docs/{path.name}", functools.partial(_send_file, path), include_in_schema=False)


def _add_content(app: FastAPI, route: str, content: bytes, kind: str) -> None:
    async def send(_: Request) -> Response:
        return Response(content, headers={"Cache-Control": "no-cache"}, media_type=kind)

    app.add_route(route, send, include_in_schema=False)


async def _send_file(path: Path, _: Request) -> Response:
    return FileResponse(path, headers={"Cache-Control": "max-age=86400"})


def _swagger_assets() -> dict[str, Path]:
    """Find the copy of Swagger UI that BentoML carries, without importing BentoML; empty when there is none."""
    spec = importlib.util.find_spec("bentoml")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = {
        kind: Path(folder, "_internal", "server", "static_content", name)
        for folder in folders
        for kind, name in SWAGGER.items()
    }
    return files if all(path.is_file() for path in files.values()) else {}
