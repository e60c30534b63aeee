"""A table to score is read by the columns of the training table, which the bundle keeps."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mla_serve.bulk.run import score_table
from mla_serve.bulk.score import Ask, schema_of
from mla_serve.bundle.manifest import Bundle
from mla_serve.errors import DataError
from mla_serve.fusion.rules import DEFAULT_RULE
from mla_serve.table import ColumnRole, Schema

ROLES = (
    ColumnRole("Product", "id"),
    ColumnRole("Photo", "image", "image"),
    ColumnRole("Product Name", "text", "text"),
    ColumnRole("Notes", "text", "notes"),  # of a modality that the bundle was trained without
    ColumnRole("Class", "label"),
)


@pytest.fixture
def ask(make_bundle: Callable[..., Path], change_manifest: Callable[..., None], tmp_path: Path) -> Ask:
    """A bundle of pictures and texts, trained on a table with columns of other names."""
    model = make_bundle(tmp_path / "model", {"image": "image", "text": "text", "numbers": "vector"})

    def give_columns(manifest: dict[str, Any]) -> None:
        manifest["table"] = Schema("Class", ROLES).to_dict()

    change_manifest(model, give_columns)
    return Ask(model, DEFAULT_RULE, None)


def score(folder: Path, ask: Ask, text: str) -> list[dict[str, str]]:
    (folder / "new.csv").write_text(text)
    score_table(folder / "new.csv", folder / "out.csv", ask, workers=1)
    with (folder / "out.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_have_the_names_of_the_training_table(tmp_path: Path, ask: Ask) -> None:
    content = Bundle.load(ask.model).inputs["image"].generate(np.random.default_rng(0))
    (tmp_path / "a.png").write_bytes(content)  # type: ignore[arg-type]  # a picture is bytes
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = score(
        tmp_path,
        ask,
        "Product;Photo;Product Name;Class\nu1;a.png;red mug;\nu2;gone.png;blue mug;\n;bad.png;;\n",
    )
    assert [row["id"] for row in rows] == ["u1", "u2", "2"]
    assert [bool(row["label"]) for row in rows] == [True, True, False]
    assert rows[0]["missing"] == '["numbers"]'
    assert rows[1]["faults.image"].startswith("no file 'gone.png' in the folder")
    assert rows[2]["error"].startswith("image: 'bad.png': this is plain text, expected PNG")


def test_columns_that_the_table_lacks_are_named(tmp_path: Path, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    score(tmp_path, ask, "Product Name,Color\nred mug,red\nblue mug,blue\n")
    assert "taken as missing: Photo, numbers" in capsys.readouterr().err


def test_a_table_without_any_of_the_columns_is_refused(tmp_path: Path, ask: Ask) -> None:
    with pytest.raises(
        DataError, match=r"none of the columns that the model reads, Photo, Product Name, numbers; it has"
    ):
        score(tmp_path, ask, "title,picture\nred mug,a.png\nblue mug,a.png\n")


def test_modalities_without_a_known_column_are_read_by_their_own_names(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    schema = schema_of(bundle)
    assert schema.modalities == {name: spec.kind for name, spec in bundle.inputs.items()}
