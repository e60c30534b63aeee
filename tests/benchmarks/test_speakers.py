"""Holding a speaker out: nobody is heard in two splits, every recording keeps its label, everything else stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.speakers import SpeakersConfig, cells, hold_out, markdown
from mla_serve.errors import ConfigError
from mla_serve.table import read_table

SPEAKERS = {"train": ("ann", "bob"), "val": ("cid",), "test": ("dot",)}


def write_table(folder: Path, speakers: dict[str, tuple[str, ...]] = SPEAKERS) -> Path:
    """Two labels, two recordings of each speaker and label; files need not be sound to be dealt."""
    (folder / "audio").mkdir(parents=True)
    for split, names in speakers.items():
        rows = []
        for name in names:
            for label in ("no", "yes"):
                for n in range(2):
                    file = f"audio/{label}_{name}_{n}.wav"
                    (folder / file).write_bytes(b"RIFF")
                    row = {"label": label, "audio": file, "text": f"{split} {len(rows)}", "who": name}
                    rows.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "dataset.json").write_text('{"group": {"audio": "who"}}')
    return folder


@pytest.mark.parametrize("speaker", ["ann", "bob", "cid", "dot"])
def test_the_held_out_speaker_is_heard_in_the_test_alone(tmp_path: Path, speaker: str) -> None:
    data = write_table(tmp_path / "data")
    hold_out(speaker, data, tmp_path / "round")
    splits = read_table(tmp_path / "round").splits
    outputs = {split: [Path(row.values["audio"]).stem.split("_") for row in rows] for split, rows in splits.items()}
    by_split = {split: {name for _, name, _ in files} for split, files in outputs.items()}
    assert by_split["test"] == {speaker}
    assert len(by_split["val"]) == 1
    assert sum(map(len, by_split.values())) == 4, "a speaker is in two splits"
    everything = [tuple(file) for files in outputs.values() for file in files]
    assert len(set(everything)) == len(everything) == 16
    for split, rows in splits.items():
        assert all(Path(row.values["audio"]).name.startswith(f"{row.label}_") for row in rows)
        before = read_table(data).splits[split]
        assert [row.values["text"] for row in rows] == [row.values["text"] for row in before]


def test_there_is_a_round_for_every_speaker(tmp_path: Path) -> None:
    config = SpeakersConfig(write_table(tmp_path / "data"), epochs=3, work=tmp_path / "work")
    rounds = cells(config)
    assert list(rounds) == ["ann", "bob", "cid", "dot"]
    assert {cell.epochs for cell in rounds.values()} == {3}
    assert len({cell.path(config.work) for cell in rounds.values()}) == 4


def test_a_table_without_speakers_is_refused(tmp_path: Path) -> None:
    data = write_table(tmp_path / "data", {"train": ("ann",), "test": ("bob",)})
    with pytest.raises(ConfigError, match="three speakers or more"):
        cells(SpeakersConfig(data, work=tmp_path / "work"))


def test_the_table_gives_mean_and_spread() -> None:
    shown = ("audio", "image", "text", "full", "missing20", "missing50", "missing80")
    results = {
        name: {"conditions": {"test": {c: {"calibrated": {"accuracy": accuracy}} for c in shown}}}
        for name, accuracy in (("ann", 0.9), ("bob", 0.8))
    }
    table = markdown(results, 30)
    assert "| mean | 85.0 |" in table
    assert "| standard deviation | 7.1 |" in table
