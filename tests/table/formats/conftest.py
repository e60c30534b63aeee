"""Read a table from its bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from mla_serve.table.faults import InvalidValue
from mla_serve.table.formats import READERS


def _read(suffix: str, data: bytes, notes: list[str] | None = None) -> list[tuple[int, Any]]:
    """Return the lines, faults as text; notes takes what the reader says."""
    lines = READERS[suffix](io.BytesIO(data), ([] if notes is None else notes).append)
    return [(line, str(cells) if isinstance(cells, InvalidValue) else cells) for line, cells in lines]


@pytest.fixture(scope="session")
def read() -> Callable[..., list[tuple[int, Any]]]:
    return _read
