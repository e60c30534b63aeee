"""The colours of the page and the report."""

from __future__ import annotations

import re

from mla_serve import palette

GROUNDS = ("ground", "surface")
TEXTS = ("ink", "muted", "accent", "bad", "warn")
ENOUGH = 4.5  # WCAG 2.2 AA for text


def luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colours(name: str) -> tuple[str, str]:
    found = re.search(rf"--{name}: light-dark\((#\w{{6}}), (#\w{{6}})\)", palette.style())
    assert found, name
    return found[1], found[2]


def test_every_text_can_be_read_on_every_ground() -> None:
    pairs = [(colours(text), colours(ground)) for text in TEXTS for ground in GROUNDS]
    pairs += [(hue, colours(ground)) for hue in palette.hues() for ground in GROUNDS]
    pairs += [(hue, colours("surface")) for hue in palette.hues()]
    pairs += [(colours(name), colours(f"{name}-soft")) for name in ("accent", "bad", "warn")]
    pairs += [(colours("on-accent"), colours("accent"))]
    poor = [(one, other) for pair in pairs for one, other in zip(*pair, strict=True) if contrast(one, other) < ENOUGH]
    assert not poor


def test_hues_differ_and_start_again_after_the_last() -> None:
    hues = palette.hues()
    assert len(hues) == 8
    assert len({light for light, _ in hues}) == len({dark for _, dark in hues}) == 8
    assert palette.hue_class(0) == palette.hue_class(8) == "hue-0"
