"""The colours of everything that people see: the page, the report, the documentation, the dashboards.

palette.css holds them as CSS variables, for light and dark screens. Each modality has one hue everywhere, by its place in
the model.
"""

from __future__ import annotations

import re
from pathlib import Path

STYLE = Path(__file__).with_name("palette.css")
HUE = re.compile(r"^\.hue-\d+ { --hue: light-dark\((#\w{6}), (#\w{6})\); }$", re.MULTILINE)


def style() -> str:
    """Return palette.css."""
    return STYLE.read_text(encoding="utf-8")


def hues() -> list[tuple[str, str]]:
    """List the hues of the modalities, each for a light and for a dark screen, such as #2d6fb8."""
    return HUE.findall(style())


def hue_class(index: int) -> str:
    """Return the CSS class that sets --hue. Args: index, the place of a modality in the model."""
    return f"hue-{index % len(hues())}"
