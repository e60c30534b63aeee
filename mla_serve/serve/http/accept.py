"""Choose between the page and the JSON of one path by the Accept header of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from mla_serve.serve.http.content_type import JSON
from mla_serve.serve.http.pages import HTML, Page, page_response

QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


class PageOrJson:
    """Answer GET and HEAD of a path with a page where the client prefers HTML to JSON, and pass on everything else.

    It stands before the guard: such a page holds nothing of the model.
    """

    def __init__(self, app: ASGIApp, pages: Mapping[str, Page]) -> None:
        """Wrap an application. Args: pages, by the path whose JSON the application answers."""
        self.app = app
        self.pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page, or pass the request on."""
        page = self.pages.get(scope["path"]) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        if page is None or not prefers_html(", ".join(Request(scope).headers.getlist("accept"))):
            await self.app(scope, receive, send)
            return
        await page_response(page, {"Vary": "Accept"})(scope, receive, send)


def prefers_html(accept: str) -> bool:
    """Return whether an Accept header has a higher quality for HTML than for JSON: browsers' do, `*/*` and "" do not."""
    qualities = dict(map(_parse_range, accept.split(",")))
    return _quality(qualities, HTML) > _quality(qualities, JSON)


def _parse_range(text: str) -> tuple[str, float]:
    """Split a media range: its type, and its quality, 0 where that is no number from 0 to 1."""
    name, *parameters = text.split(";")
    given = [parameter for parameter in parameters if parameter.strip()[:1].lower() == "q"]
    found = QUALITY.fullmatch(given[0]) if given else None
    return name.strip().lower(), float(found[1]) if found else float(not given)


def _quality(qualities: Mapping[str, float], name: str) -> float:
    """Return the quality of a media type: that of the most specific range that matches it, 0 if none does."""
    ranges = (name, f"{name.partition('/')[0]}/*", "*/*")
    return next((qualities[each] for each in ranges if each in qualities), 0.0)
