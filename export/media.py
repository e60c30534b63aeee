"""Payloads as HTML elements that hold their content: pictures, players, quoted text."""

from __future__ import annotations

import base64
import html

from mla_serve.inputs import Payload
from mla_serve.inputs.media.formats import media_type

LARGEST = 300_000  # bytes of a picture or recording that is shown
NUMBERS, CHARACTERS = 12, 300  # of a vector or text that are shown


def payload_as_html(name: str, payload: Payload) -> str:
    """Show a picture or a recording as such, other files by their size, and texts and numbers by how they begin."""
    if isinstance(payload, bytes):
        return _file(name, payload)
    text = payload if isinstance(payload, str) else " ".join(f"{value:.3g}" for value in list(payload)[:NUMBERS])
    return f"<blockquote>{html.escape(text[:CHARACTERS])}</blockquote>"


def _file(name: str, payload: bytes) -> str:
    name, kind = html.escape(name), media_type(payload)
    family = kind.partition("/")[0]
    if len(payload) > LARGEST or family not in ("image", "audio"):
        reason = "too large to show" if len(payload) > LARGEST else "cannot be shown"
        return f"<p><small>{name}: {len(payload):,} bytes, {reason}</small></p>"
    source = f'src="data:{kind};base64,{base64.b64encode(payload).decode()}"'
    return f'<img alt="{name}" {source}>' if family == "image" else f"<audio controls {source}></audio>"
