"""The pages and docstrings that show a newcomer the packages: all is listed, and what is listed exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mla_serve

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = {
    path.name if path.is_dir() else path.stem
    for path in (ROOT / "mla_serve").iterdir()
    if not path.name.startswith("_") and (path.is_dir() or path.suffix == ".py")
}


def test_every_package_is_in_the_drawing_and_in_the_docstring_of_mla_serve() -> None:
    drawing = PAGE.partition("## The layers")[2].partition("Each of these")[0]
    assert {name for name in PACKAGES if not re.search(rf"\b{name}\b", drawing)} == set()
    listed = re.findall(r"^(\w+)(?:/|\.py)  ", mla_serve.__doc__ or "", re.MULTILINE)
    assert sorted(listed) == sorted(PACKAGES)


def test_every_path_of_the_page_exists() -> None:
    paths = re.findall(r"`((?:mla_serve|tests|export)/[\w/.]*)`", PAGE)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


LISTING = re.compile(r"^(\w+/?(?:, \w+)*)  +\S", re.MULTILINE)  # "parts  what they are", as lines of a docstring
DOCSTRINGS = {
    path.parent.relative_to(ROOT): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    for top in ("mla_serve", "export")
    for path in (ROOT / top).rglob("__init__.py")
    if path.parent != ROOT / "mla_serve"
}


@pytest.mark.parametrize("folder", sorted(one for one in DOCSTRINGS if LISTING.search(DOCSTRINGS[one])), ids=str)
def test_a_docstring_that_lists_the_modules_of_its_package_lists_each(folder: Path) -> None:
    text = DOCSTRINGS[folder]
    listed = {name.strip("/ ") for group in LISTING.findall(text) for name in group.split(",")}
    there = {path.stem for path in (ROOT / folder).iterdir() if not path.name.startswith("_")}
    assert sorted(listed - there) == []
    assert sorted(name for name in there if not re.search(rf"\b{name}\b", text)) == []
