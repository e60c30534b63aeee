"""Payloads as HTML elements that hold their content: pictures, players, quoted text."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from mla_serve.inputs import Payload

LARGEST = 300_000  # bytes of a picture or recording that is shown
NUMBERS, CHARACTERS = 12, 300  # of a vector or text that are shown
PICTURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
}
SOUNDS = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg"}


def media(name: str, kind: str, payload: Payload) -> str:
    """Return the HTML of one payload."""
    if kind in ("image", "audio") and isinstance(payload, bytes):
        return _file(name, kind, payload)
    text = payload if isinstance(payload, str) else " ".join(f"{value:.3g}" for value in list(payload)[:NUMBERS])
    return f"<blockquote>{html.escape(str(text)[:CHARACTERS])}</blockquote>"


def _file(name: str, kind: str, payload: bytes) -> str:
    if len(payload) > LARGEST:
        return f"<p><small>{html.escape(name)}: {len(payload):,} bytes, too large to show</small></p>"
    content = base64.b64encode(payload).decode()
    if kind == "image":
        return f'<img alt="{html.escape(name)}" src="data:{_type(payload, PICTURES, "image/tiff")};base64,{content}">'
    return f'<audio controls src="data:{_type(payload, SOUNDS, "audio/mpeg")};base64,{content}"></audio>'


def _type(payload: bytes, signs: Mapping[bytes, str], otherwise: str) -> str:
    return next((kind for sign, kind in signs.items() if payload.startswith(sign)), otherwise)
