"""Draw results as HTML for a notebook: small, without scripts, links or styles of its own, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

FRAME = '<div style="font-family:sans-serif;font-size:90%;line-height:1.5;overflow-x:auto">{}</div>'
CELL = "text-align:{};padding:0 1em 0 0;border:0;background:transparent;color:inherit"
BAR = '<div style="background:#3b82f6;opacity:.8;height:.7em;width:{:.0f}px"></div>'
RANGE = (
    '<div style="position:relative;width:{width}px;height:.9em"><div style="position:absolute;top:.35em;height:.2em;'
    'left:{low:.0f}px;width:{reach:.0f}px;background:#3b82f6;opacity:.8"></div><div style="position:absolute;top:.1em;'
    'left:{at:.0f}px;width:3px;height:.7em;background:#3b82f6"></div></div>'
)
BAR_WIDTH = 120  # pixels


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table. Args: titles, plain text; rows, cells that are HTML already. All but the first column are numbers."""
    head = "".join(
        f'<th style="{_style(at)};font-weight:normal;opacity:.7">{escape(t)}</th>' for at, t in enumerate(titles)
    )
    body = "".join(
        f'<tr style="background:transparent">{"".join(_cell(at, cell) for at, cell in enumerate(row))}</tr>'
        for row in rows
    )
    return f'<table style="border:0;margin:.4em 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def bar_cell(share: float) -> str:
    """Draw a share of 1 as a bar."""
    return BAR.format(max(0.0, min(1.0, share)) * BAR_WIDTH)


def range_cell(low: float, at: float, high: float) -> str:
    """Draw a point in a range on an axis. Args: shares of the axis, 0 to 1."""
    low, at, high = (max(0.0, min(1.0, share)) * BAR_WIDTH for share in (low, at, high))
    return RANGE.format(width=BAR_WIDTH, low=low, at=at, reach=high - low)


def _style(column: int) -> str:
    return CELL.format("right" if column else "left")


def _cell(column: int, content: str) -> str:
    return f'<td style="{_style(column)}">{content}</td>'
