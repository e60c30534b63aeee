"""The page of bench-defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_report(folder: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write defaults.json and .md."""
