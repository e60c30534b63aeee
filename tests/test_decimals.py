"""Numbers for people."""

from __future__ import annotations

import pytest

from mla_serve.decimals import percent


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0.0, "0.0 %"),
        (0.0004, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.984, "98.4 %"),
        (0.9994, "99.9 %"),
        (0.9995, "> 99.9 %"),
        (1 - 1e-12, "> 99.9 %"),
        (1.0, "100.0 %"),
        (2.923, "292.3 %"),
    ],
)
def test_only_one_is_written_as_all_and_only_zero_as_none(share: float, written: str) -> None:
    assert percent(share) == written
