"""SECURITY.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_line_of_the_threat_model_is_held_by_a_test() -> None:
    lines = [line for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(lines) > 20
    for line in lines[2:]:
        found = NAMED.search(line)
        assert found, line
        tree = ast.parse((ROOT / found[1]).read_text(encoding="utf-8"))
        assert found[2] in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, line


def test_every_setting_of_the_service_is_documented() -> None:
    from mla_serve.serve.settings import Settings

    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    missing = [name for name in Settings.model_fields if f"MLA_{name.upper()}" not in text]
    assert not missing
