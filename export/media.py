"""Payloads as HTML elements that hold their content: pictures, players, quoted text, tables of cells."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from mla_serve.inputs import Cell, Payload
from mla_serve.inputs.media.formats import media_type

LARGEST = 300_000  # bytes of a picture or recording that is shown
NUMBERS, CHARACTERS = 12, 300  # of a vector or text that are shown


def payload_as_html(name: str, payload: Payload) -> str:
    """Show a picture or a recording as such, other files by their size, texts and numbers by how they begin, and cells as a table."""
    if isinstance(payload, bytes):
        return _file(name, payload)
    if isinstance(payload, Mapping):
        rows = "".join(
            f'<tr><th scope="row">{html.escape(column)}</th><td>{_cell(cell)}</td></tr>'
            for column, cell in payload.items()
        )
        return f"<table>{rows}</table>"
    text = payload if isinstance(payload, str) else " ".join(f"{value:.3g}" for value in list(payload)[:NUMBERS])
    return f"<blockquote>{html.escape(text[:CHARACTERS])}</blockquote>"


def _cell(cell: Cell) -> str:
    return html.escape(str(cell)[:CHARACTERS])


def _file(name: str, payload: bytes) -> str:
    name, kind = html.escape(name), media_type(payload)
    family = kind.partition("/")[0]
    if len(payload) > LARGEST or family not in ("image", "audio"):
        reason = "too large to show" if len(payload) > LARGEST else "cannot be shown"
        return f"<p><small>{name}: {len(payload):,} bytes, {reason}</small></p>"
    source = f'src="data:{kind};base64,{base64.b64encode(payload).decode()}"'
    return f'<img alt="{name}" {source}>' if family == "image" else f"<audio controls {source}></audio>"
