"""CONTRIBUTING.md names files: each of them exists, and each recipe has at most ten lines."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NEW = "NAME.py"  # the file that a recipe adds


def test_the_files_that_it_names_exist() -> None:
    names = set(re.findall(r"[\w/.]+/[\w.]+\.(?:py|js|md|toml)\b", TEXT))
    assert len(names) > 15
    missing = [
        n for n in names if not n.endswith(NEW) and not any((top / n).exists() for top in (ROOT, ROOT / "mla_serve"))
    ]
    assert missing == []


def test_a_recipe_has_at_most_ten_lines() -> None:
    recipes = TEXT.split("## How to add")[1].split("\n## ")[0].split("\n**")[1:]
    assert len(recipes) == 6
    assert max(len([line for line in recipe.splitlines() if line]) for recipe in recipes) <= 10
