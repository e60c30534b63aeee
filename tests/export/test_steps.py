"""Payloads of golden samples: files and many numbers are files of the bundle, the rest stands in its manifest."""

from __future__ import annotations

import json
from pathlib import Path

from mla_serve.export.steps import MOST_NUMBERS, store_payload


def test_many_numbers_go_into_a_file_and_few_stay(tmp_path: Path) -> None:
    many = [float(number) / 3 for number in range(MOST_NUMBERS + 1)]
    assert store_payload(many, "golden/0.embedding", tmp_path) == "golden/0.embedding"
    assert json.loads((tmp_path / "golden" / "0.embedding").read_bytes()) == many
    assert store_payload(many[:3], "golden/1.embedding", tmp_path) == many[:3]
    assert [path.name for path in (tmp_path / "golden").iterdir()] == ["0.embedding"]


def test_words_and_cells_stand_in_the_manifest(tmp_path: Path) -> None:
    assert store_payload("w" * 1000, "golden/0.text", tmp_path) == "w" * 1000
    assert store_payload({"price": 1.5}, "golden/0.facts", tmp_path) == {"price": 1.5}
    assert [*tmp_path.iterdir()] == []
