"""What is said of the rows before training: each kind in one line, and nothing on rows that are in order."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from rich.console import Console

from mla_serve.commands.train import _print_plan
from mla_serve.errors import DataError
from mla_serve.train.config import TrainConfig
from mla_serve.train.notes import DATA
from mla_serve.train.plan import make_plan

Array = np.ndarray[Any, Any]
Cells = dict[str, Any]


def write(folder: Path, splits: Mapping[str, Sequence[Cells]], options: Cells | None = None) -> TrainConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    declared = {"numbers": "vector"} if any("numbers" in row for rows in splits.values() for row in rows) else {}
    (folder / "dataset.json").write_text(json.dumps({"modalities": declared, **(options or {})}))
    return TrainConfig(data=folder, runs=folder.parent / "runs")


def said(config: TrainConfig) -> list[str]:
    """Return the notes on the data."""
    return [note for note in make_plan(config).notes if note.startswith(DATA)]


def vectors(count: int, seed: int = 0, size: int = 10, classes: int = 3) -> list[Cells]:
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((count, size)).round(5).tolist()
    return [{"label": "abcdefgh"[n % classes], "numbers": row} for n, row in enumerate(numbers)]


def picture(generator: np.random.Generator) -> Array:
    """Smooth random colours, as photographs have."""
    coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def recording(generator: np.random.Generator) -> Array:
    """Some tones that rise and fall, as voices do, and a little noise."""
    time, tones = np.arange(8000) / 8000, generator.uniform(100, 900, 5)
    wave = np.sin(2 * np.pi * np.outer(tones, time) + generator.uniform(0, 6.3, (5, 1))).sum(axis=0)
    loudness = np.interp(np.arange(8000), np.linspace(0, 8000, 9), generator.uniform(0.1, 1, 9))
    scaled: Array = 0.1 * wave * loudness + 0.005 * generator.standard_normal(8000)
    return scaled


# Nothing is said without a reason.


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_one_source_give_no_note_however_they_are_split(tmp_path: Path, seed: int) -> None:
    """Random labels and random splits; low-dimensional numbers, of which some are close by chance, too."""
    rows = vectors(160, seed, size=(2, 8, 40)[seed % 3])
    for row, label in zip(rows, np.random.default_rng(seed).integers(0, 3, 160), strict=True):
        row["label"] = str(label)
    config = write(tmp_path / "d", {"train": rows[:100], "val": rows[100:130], "test": rows[130:]})
    assert said(config) == []


def test_pictures_and_recordings_of_one_source_give_no_note(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    splits: dict[str, list[Cells]] = {"train": [], "val": [], "test": []}
    for number in range(120):
        Image.fromarray(picture(generator)).save(tmp_path / f"{number}.png")
        soundfile.write(tmp_path / f"{number}.wav", recording(generator), 8000)
        row = {"label": "ab"[number // 4 % 2], "image": f"{number}.png", "audio": f"{number}.wav"}
        splits[("train", "train", "val", "test")[number % 4]].append(row)
    assert said(write(tmp_path, splits)) == []


def test_recordings_of_machines_that_hum_alike_are_no_copies_of_each_other(tmp_path: Path) -> None:
    """Their spectra are the same, and so is how loud they are; the recordings are not."""
    generator = np.random.default_rng(0)
    splits: dict[str, list[Cells]] = {"train": [], "val": []}
    for number in range(120):
        time = np.arange(8000) / 8000 + generator.uniform()
        hum = sum(np.sin(2 * np.pi * (50 + 10 * (number % 2)) * k * time) / k for k in range(1, 5))
        wave = 0.2 * hum + 0.03 * generator.standard_normal(8000) if number % 4 else generator.normal(0, 0.1, 8000)
        soundfile.write(tmp_path / f"{number}.wav", wave, 8000)
        splits["val" if number % 3 == 0 else "train"].append({"label": "ab"[number % 2], "audio": f"{number}.wav"})
    assert said(write(tmp_path, splits)) == []


# Copies across splits.


def _jpeg(pixels: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def _smaller(pixels: Array) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((48, 48)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("copy", [_jpeg, _smaller])
def test_copies_of_pictures_are_counted_whatever_else_their_rows_hold(
    tmp_path: Path, copy: Callable[[Array], bytes]
) -> None:
    generator = np.random.default_rng(0)
    pictures = [picture(generator) for _ in range(60)]
    rows = []
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append({"label": "ab"[number % 2], "image": f"{number}.png", "text": f"text {number}"})
    for number in range(5):
        (tmp_path / f"copy{number}").write_bytes(copy(pictures[number]))
        rows[50 + number]["image"] = f"copy{number}"
    (note,) = said(write(tmp_path, {"train": rows[:40], "val": rows[40:]}))
    assert note.startswith("data: 5 of 20 val rows have a copy in train (val.jsonl:11 and train.jsonl:1: image; ")
    assert note.count(": image") == 3
    assert "; ...)" in note


def test_copies_of_recordings_are_counted(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    waves = [recording(generator) for _ in range(40)]
    rows = []
    for number, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{number}.wav", wave, 8000)
        rows.append({"label": "ab"[number % 2], "audio": f"{number}.wav"})
    soundfile.write(tmp_path / "quieter.flac", 0.5 * waves[0], 8000)
    soundfile.write(tmp_path / "smaller.ogg", waves[1], 8000, format="OGG")
    rows[30]["audio"], rows[31]["audio"] = "quieter.flac", "smaller.ogg"
    (note,) = said(write(tmp_path, {"train": rows[:30], "val": rows[30:]}))
    assert note.startswith("data: 2 of 10 val rows have a copy in train (")


def test_rows_of_texts_and_vectors_are_copies_when_all_of_it_is_the_same(tmp_path: Path) -> None:
    rows = [{**row, "text": f"say it {n % 7}"} for n, row in enumerate(vectors(90))]
    rows[60] = {**rows[0], "text": "Say  it 0", "numbers": [x + 1e-6 for x in rows[0]["numbers"]]}
    rows[80] = {**rows[1]}
    rows[81] = {**rows[61]}
    (note,) = said(write(tmp_path / "d", {"train": rows[:60], "val": rows[60:75], "test": rows[75:]}))
    assert "1 of 15 val rows have a copy in train (" in note
    assert "2 of 15 test rows have a copy in train or val (" in note


def test_rows_that_differ_in_a_rare_category_alone_are_no_copies(tmp_path: Path) -> None:
    rows = [{"label": "ab"[n % 2], "facts": {"brand": f"brand {n}", "size": n % 3}} for n in range(40)]
    options = {"modalities": {"facts": "columns"}}
    assert said(write(tmp_path / "d", {"train": rows[:30], "val": rows[30:]}, options)) == []
    rows[30] = rows[0]
    (note,) = said(write(tmp_path / "d", {"train": rows[:30], "val": rows[30:]}, options))
    assert "1 of 10 val rows have a copy in train (" in note


def test_where_validation_is_split_off_its_copies_are_counted_too(tmp_path: Path) -> None:
    rows = vectors(50)
    (note,) = said(write(tmp_path / "d", {"train": [*rows, *rows]}))
    assert "of 20 val rows have a copy in train" in note


# The other kinds, one line each.


def test_equal_rows_with_different_labels_are_named(tmp_path: Path) -> None:
    rows = vectors(60)
    rows += [{**rows[0], "label": "b"}, {**rows[0], "label": "c"}, {**rows[5], "label": "a"}]
    (note,) = said(write(tmp_path / "d", {"train": rows, "val": vectors(15, seed=1)}))
    assert note.startswith("data: rows that are equal or nearly so have different labels in 2 cases (")
    assert "'a'" in note
    assert "'b'" in note


def test_a_modality_that_never_changes_is_named_and_where_all_are_so_training_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "text": "n/a"} for row in vectors(60)]
    (note,) = said(write(tmp_path / "some", {"train": rows[:45], "val": rows[45:]}))
    assert note.startswith("data: text is the same in all 45 training rows that have it")
    only = [{"label": row["label"], "text": "n/a"} for row in rows]
    with pytest.raises(DataError, match="every training row has the same text"):
        make_plan(write(tmp_path / "all", {"train": only[:45], "val": only[45:]}))


def test_classes_with_few_rows_are_told_in_one_line(tmp_path: Path) -> None:
    rows = vectors(60)
    rows += [{**row, "label": label} for row, label in zip(vectors(5, seed=1), ["x", "y", "y", "z", "z"], strict=True)]
    rows += [{"label": "w", "text": "words alone"}]
    val = [*vectors(15, seed=2), {**vectors(1, seed=3)[0], "label": "z"}]
    config = write(tmp_path / "d", {"train": rows, "val": val})
    config = TrainConfig(data=config.data, runs=config.runs, modalities=("numbers",))
    (note,) = said(config)
    assert note.startswith(
        "data: of 7 classes, 1 without a training row ('w'), 1 with one training row ('x'), 2 without a val row ('x', 'y'):"
    )


def test_what_is_said_is_printed_as_it_stands_in_one_line(tmp_path: Path) -> None:
    rows = vectors(30)
    rows += [{**row, "label": label} for row, label in zip(vectors(2, seed=1), ["[red]", ":dog:"], strict=True)]
    planned = make_plan(write(tmp_path / "d", {"train": rows, "val": vectors(15, seed=2)}))
    screen = Console(file=io.StringIO(), width=40)
    _print_plan(screen, planned, processes=1)
    (line,) = (line for line in screen.file.getvalue().splitlines() if line.startswith(DATA))  # type: ignore[attr-defined]
    assert "2 with one training row (':dog:', '[red]')" in line


def test_one_class_alone_is_refused_also_where_it_is_chosen_so(tmp_path: Path) -> None:
    rows = [*[{**row, "label": "a"} for row in vectors(20)], {"label": "b", "text": "words"}]
    config = write(tmp_path / "d", {"train": rows, "val": vectors(4, classes=1)})
    with pytest.raises(DataError, match="20 training rows that can be used have one class only, 'a'"):
        make_plan(TrainConfig(data=config.data, runs=config.runs, modalities=("numbers",)))


def test_a_label_of_its_own_for_every_row_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "label": str(1000 + 7 * n)} for n, row in enumerate(vectors(20))]
    val = [{**row, "label": str(1000 + 7 * n)} for n, row in enumerate(vectors(5, seed=1))]
    with pytest.raises(DataError, match="the 20 rows for training have a label of its own each"):
        make_plan(write(tmp_path / "d", {"train": rows, "val": val}))


def test_too_few_rows_are_not_taken_for_labels_that_are_no_classes(tmp_path: Path) -> None:
    config = write(tmp_path / "d", {"train": vectors(2), "val": vectors(2)})
    with pytest.raises(DataError) as refused:
        make_plan(config)
    assert str(refused.value).endswith("expected several rows of each class for training; add rows")


def test_a_column_of_numbers_as_label_is_doubted(tmp_path: Path) -> None:
    rows = [{**row, "label": str(1000 + 7 * min(n, 17))} for n, row in enumerate(vectors(20))]
    val = [{**row, "label": str(1000 + 7 * n)} for n, row in enumerate(vectors(18, seed=1))]
    (note,) = said(write(tmp_path / "d", {"train": rows, "val": val}))
    assert "17 with one training row" in note
    assert note.endswith("is the column 'label' a number to be predicted?")


def test_groups_that_training_has_too_are_counted(tmp_path: Path) -> None:
    rows = [{**row, "meta": {"who": f"s{n % 6}"}} for n, row in enumerate(vectors(60))]
    val = [{**row, "meta": {"who": f"s{n % 8}"}} for n, row in enumerate(vectors(16, seed=1))]
    new = [{**row, "meta": {"who": "t"}} for row in vectors(9, seed=2)]
    splits = {"train": rows, "val": val, "test": new}
    (note,) = said(write(tmp_path / "shared", splits, {"group": {"numbers": "meta.who"}}))
    assert note.startswith("data: 75% of the numbers values of val are of a group that train has too")
    other = [{**row, "meta": {"who": "u"}} for row in vectors(9, seed=3)]
    assert said(write(tmp_path / "apart", {**splits, "val": other}, {"group": "meta.who"})) == []


def test_files_that_cannot_be_read_are_listed_all_at_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for number in range(12):
        Image.fromarray(picture(generator)).save(tmp_path / f"{number}.png")
        rows.append({"label": "ab"[number % 2], "image": f"{number}.png"})
    for number in (3, 7):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        make_plan(write(tmp_path, {"train": rows[:8], "val": rows[8:]}))
    first, *lines = str(caught.value).splitlines()
    assert "2 faults in the data set" in first
    assert [line.split(": ")[0].strip() for line in lines[:2]] == ["train.jsonl:4", "train.jsonl:8"]


def test_labels_that_only_their_spelling_keeps_apart_are_named(tmp_path: Path) -> None:
    labels = ["Cat", "cat", "Groß", "gross", "dog", "e\u0301", "\u00e9"]
    rows = [{**row, "label": labels[n % 7]} for n, row in enumerate(vectors(70))]
    (note,) = said(write(tmp_path / "d", {"train": rows, "val": vectors_of(labels)}))
    assert note.startswith("data: labels that differ only in case, blanks or Unicode form: 'Cat' and 'cat'")
    assert "'Groß' and 'gross'" in note
    assert "'e\u0301' and '\u00e9'" in note
    assert "dog" not in note


def vectors_of(labels: Sequence[str]) -> list[Cells]:
    return [{**row, "label": label} for row, label in zip(vectors(len(labels), seed=5), labels, strict=True)]


def test_rows_of_labels_and_numbers_are_checked_alike(tmp_path: Path) -> None:
    rows = vectors(40)
    tags = [{**row, "label": ["x", "y"][n % 2 :]} for n, row in enumerate(rows)]
    tags[0]["label"], tags[1]["label"] = ["y", "Z"], ["y", "z"]
    tags.append({**tags[2], "label": ["x"]})
    val = [{**row, "label": ["y"]} for row in vectors(10, seed=1)]
    notes = said(write(tmp_path / "tags", {"train": tags, "val": val}))
    assert [note.partition(" (")[0] for note in notes] == [
        "data: of any of 4 labels, 2 with one training row",
        "data: labels that differ only in case, blanks or Unicode form: 'Z' and 'z'; each is learned by itself; spell them "
        "alike where they mean the same",
        "data: rows that are equal or nearly so have different labels in 1 case",
    ]
    assert "train.jsonl:3 ['x', 'y'] and train.jsonl:41 ['x']" in notes[2]
    prices = [{**row, "label": 10.0 * n + 0.5} for n, row in enumerate(rows)]
    prices += [{**rows[3], "label": 30.6}, {**rows[4], "label": 390.5}]
    val = [{**row, "label": 10.0 * n} for n, row in enumerate(vectors(10, seed=1))]
    (note,) = said(write(tmp_path / "prices", {"train": prices, "val": val}))
    assert "have different labels in 1 case (train.jsonl:5 40.5 and train.jsonl:42 390.5)" in note


def test_labels_that_cannot_be_learned_from_what_is_left_are_refused(tmp_path: Path) -> None:
    rows = [{**row, "label": ["x"]} for row in vectors(20)] + [{"label": ["y"], "text": "words"}] * 2
    config = write(tmp_path / "d", {"train": rows, "val": [{**row, "label": ["x"]} for row in vectors(4)]})
    with pytest.raises(DataError, match="the 20 training rows that can be used have the same labels, x"):
        make_plan(TrainConfig(data=config.data, runs=config.runs, modalities=("numbers",)))
