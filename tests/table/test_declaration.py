"""dataset.json: what may be declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mla_serve.table import read_table
from mla_serve.table.declaration import RESERVED

Make = Callable[..., Path]
Splits = dict[str, list[dict[str, Any]]]
Fault = Callable[[Path], str]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "not usable JSON: expected an object"),
        ({"modality": {}}, "unknown entry 'modality'"),
        ({"modalities": ["v"]}, "modalities: expected"),
        ({"modalities": {"v": "video"}}, "v: unknown kind 'video'; expected one of image, audio, text, vector"),
        ({"modalities": {"v": ["image"]}}, "v: unknown kind"),
        ({"modalities": {"../v": "vector"}}, "the name '../v' cannot be used"),
        ({"group": 5}, "group: expected"),
        ({"group": {"audio": 5}}, "group: expected"),
        ({"group": {"camera": "who"}}, "group: unknown modality 'camera'"),
        ({"group": "meta.speaker"}, "group: no row has a value at 'meta.speaker'"),
    ],
)
def test_faults_of_the_declaration(
    tmp_path: Path, options: object, expected: str, make: Make, fault: Fault, good: Splits
) -> None:
    message = fault(make(tmp_path, good, options))
    assert "dataset.json: " in message
    assert expected in message


NAMES = ["id", "label", "split", "present", "head", "top_k", "coverage", "fusion", "model", "head_image"]


@pytest.mark.parametrize("name", [*NAMES, "Rear", "rear camera", "rear-camera", "_v", "1st", "v\n", "é", "", "v" * 65])
def test_names_that_cannot_be_a_file_and_a_request_field(
    tmp_path: Path, name: str, make: Make, fault: Fault, good: Splits
) -> None:
    message = fault(make(tmp_path, good, {"modalities": {name: "text"}}))
    assert "1 fault in the data set" in message
    assert "cannot be used; expected at most 64 of a-z" in message


def test_names_that_can(tmp_path: Path, make: Make) -> None:
    names = ["v", "v" * 64, "headset", "model_2", "text_2"]
    rows = [{"label": label, **dict.fromkeys(names, "x")} for label in "ab"]
    table = read_table(make(tmp_path, {"train": rows}, {"modalities": dict.fromkeys(names, "text")}))
    assert list(table.modalities) == names


def test_a_declared_modality_has_to_occur_in_train(tmp_path: Path, make: Make, fault: Fault, good: Splits) -> None:
    test = [{"label": "a", "v": [1.0, 2.0]}]
    options = {"modalities": {"v": "vector"}}
    expected = "dataset.json: modalities: no row of train has a value for 'v'"
    assert expected in fault(make(tmp_path / "a", {**good, "test": test}, options))
    broken = [*good["train"], {"label": "a", "v": "one two"}]  # its own fault is enough
    assert "1 fault in the data set" in fault(make(tmp_path / "b", {"train": broken}, options))


RULE = f"at most 64 of a-z, 0-9 and _, a letter first; not {', '.join(RESERVED)}, nor beginning with head_"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            [1],
            "not usable JSON: expected an object with any of modalities, columns, label, split, group, about, got [1]; correct it",
        ),
        ({"modalities": [1]}, 'modalities: expected {"name": "kind"}, got [1]; correct it'),
        (
            {"modalities": {"v": "smell"}},
            "modalities: v: unknown kind 'smell'; expected one of image, audio, text, vector, columns",
        ),
        (
            {"modalities": {"A": "text"}},
            f"modalities: the name 'A' cannot be used; expected {RULE}; rename it here and in the tables",
        ),
        ({"group": [1]}, 'group: expected "column" or {"modality": "column"}, got [1]; correct it'),
        ({"group": {"text": 1}}, 'group: expected "column" or {"modality": "column"}, got {\'text\': 1}; correct it'),
        ({"group": {"smell": "who"}}, "group: unknown modality 'smell'; expected some of image, audio, text"),
        (
            {"colour": 1},
            "unknown entry 'colour'; expected modalities, columns, label, split, group, about; remove it or correct its spelling",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_what_was_expected(
    tmp_path: Path, make: Make, fault: Fault, good: Splits, options: object, expected: str
) -> None:
    assert fault(make(tmp_path, good, options)).split("\n")[1] == f"  dataset.json: {expected}"


def test_json_that_is_broken_is_told_with_the_place_in_it(
    tmp_path: Path, make: Make, fault: Fault, good: Splits
) -> None:
    folder = make(tmp_path, good)
    (folder / "dataset.json").write_text('{"group": }')
    told = fault(folder).split("\n")[1]
    assert told == "  dataset.json: not usable JSON: Expecting value: line 1 column 11 (char 10); correct it"
