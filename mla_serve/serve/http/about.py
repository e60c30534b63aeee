"""What a bundle says about itself, for people: its texts, its model card and its report.

The shells at /model, /report and /card hold nothing of the model. Their scripts fetch the content from here, with a key
where the service asks for one.
"""

from __future__ import annotations

import re

import orjson

from mla_serve.bundle.manifest import Bundle
from mla_serve.bundle.markdown import line_to_html, to_html
from mla_serve.serve.http.content_type import JSON
from mla_serve.serve.http.pages import HTML, Page

REPORT, CARD = "report.html", "MODEL_CARD.md"
# The report brings its own styles, pictures and sounds, and needs nothing else. A script in it would not run.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-popups"
)
FIRST_HEADING = re.compile(r"\A\s*# .*\n")


def about_pages(bundle: Bundle) -> dict[str, Page]:
    """Return the texts of a bundle at /about.json, and its report at /report.html if it has one."""
    pages = {"/about.json": Page(orjson.dumps(_texts(bundle)), JSON)}
    if REPORT in bundle.manifest.files:
        policy = {"Content-Security-Policy": REPORT_POLICY}
        pages[f"/{REPORT}"] = Page(bundle.read(REPORT), f"{HTML}; charset=utf-8", policy)
    return pages


def _texts(bundle: Bundle) -> dict[str, object]:
    """Return the Markdown of the bundle as HTML. card: empty where there is none; report: whether there is one."""
    about, has_card = bundle.manifest.about, CARD in bundle.manifest.files
    card = bundle.read(CARD).decode("utf-8", "replace") if has_card else ""
    return {
        "purpose": to_html(about.purpose),
        "limits": [line_to_html(limit) for limit in about.limits],
        "data": to_html(about.data),
        "licence": to_html(about.licence),
        "card": to_html(FIRST_HEADING.sub("", card)),  # the page's own heading is the name of the model
        "report": REPORT in bundle.manifest.files,
    }
