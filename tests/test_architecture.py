"""The pages that show a newcomer the packages: every package is listed, and every path exists."""

from __future__ import annotations

import re
from pathlib import Path

import mla_serve

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = {
    path.name if path.is_dir() else path.stem
    for path in (ROOT / "mla_serve").iterdir()
    if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py")
}


def test_every_room_is_in_the_drawing_and_in_the_docstring_of_the_package() -> None:
    drawing = PAGE.partition("## The layers")[2].partition("Each of these")[0]
    assert {name for name in PACKAGES if not re.search(rf"\b{name}\b", drawing)} == set()
    listed = re.findall(r"^(\w+)(?:/|\.py)  ", mla_serve.__doc__ or "", re.MULTILINE)
    assert sorted(listed) == sorted(PACKAGES)


def test_every_path_of_the_page_exists() -> None:
    paths = re.findall(r"`((?:mla_serve|tests|export)/[\w/.]*)`", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
