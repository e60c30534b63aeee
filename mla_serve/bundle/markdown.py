"""Markdown as HTML, for what a bundle says about itself: the page, the report and the card show it alike."""

from __future__ import annotations

import functools
import re

from markdown_it import MarkdownIt

LEADS_TO = re.compile(r"(?:https?|mailto):", re.IGNORECASE)


def to_html(text: str) -> str:
    """Render Markdown. HTML in it becomes text, and so does a link to anything but a web page or a mail address."""
    html: str = _renderer().render(text)
    return html


def line_to_html(text: str) -> str:
    """Render Markdown within a line."""
    html: str = _renderer().renderInline(text)
    return html


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802 (its name there)
        """Allow nothing else, such as paths of the service and data."""
        return bool(LEADS_TO.match(url))


@functools.cache
def _renderer() -> MarkdownIt:
    """Make the renderer. A picture becomes a link: nothing is loaded from elsewhere."""
    return _Markdown("commonmark", {"html": False}).enable("table").disable("image")
