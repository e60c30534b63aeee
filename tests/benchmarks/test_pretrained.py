"""Near-duplicates are what they are said to be, training sees no test row, and the gain is over the best single one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.accuracy.pretrained import (
    PretrainedConfig,
    gain,
    gained,
    markdown,
    normalised,
    repeats,
    run,
    without_test,
)
from mla_serve.errors import ConfigError
from mla_serve.table import Row, read_table
from tests.train.pretrained.zoo import Zoo, make_image


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("RT @someone: So happy today! http://t.co/abc", "so happy... TODAY"),
        ("Look at this http:/cut", "look at this"),
        ("a #tag, and_more", "a tag and more"),
    ],
)
def test_texts_that_differ_in_links_retweets_and_marks_are_the_same(text: str, same: str) -> None:
    assert normalised(text) == normalised(same)


def test_other_words_are_other_texts() -> None:
    assert len({normalised(text) for text in ("so happy", "so sad", "@happy so", "über", "uber")}) == 5


def test_repeats_are_found_by_text_and_by_the_bytes_of_the_image(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / name).write_bytes(content)

    def row(text: str, image: str) -> Row:
        return Row(id=text, label="x", values={"text": text, "image": tmp_path / image}, present={}, groups={})

    train = [row("RT @x: Hello", "a")]
    assert repeats([row("hello!", "b"), row("bye", "c"), row("bye", "b")], train) == {
        "text": [True, False, False],
        "image": [False, True, False],
    }


def test_training_sees_no_test_row(table: Path, tmp_path: Path) -> None:
    copy = without_test(table, tmp_path / "copy")
    assert set(read_table(copy).splits) == {"train", "val"}
    assert len(read_table(copy).splits["train"]) == len(read_table(table).splits["train"])
    with pytest.raises(ConfigError, match="test is missing"):
        without_test(copy, tmp_path / "again")


def test_the_gain_is_over_the_best_single_modality() -> None:
    scores = {
        name: {"calibrated": {"accuracy": a, "nll": n}}
        for name, a, n in (("full", 0.8, 0.5), ("image", 0.6, 0.9), ("text", 0.75, 0.6))
    }
    assert gain(scores) == pytest.approx(0.05)
    assert gain(scores, key="nll") == pytest.approx(0.1)


def test_the_interval_is_over_paired_rows_of_the_best_single_modality() -> None:
    seed = {
        "is_new": "1111011111",
        "right": {"full": "1111111110", "image": "0000000000", "text": "1111011110"},
    }
    assert gained([{"test": seed}] * 3, "test", "all").startswith("Fused minus text: +10.0 points, 95 % interval +0.0")
    assert "+0.0 points, 95 % interval +0.0 to +0.0" in gained([{"test": seed}] * 3, "test", "new")


def test_a_small_round_trains_measures_and_can_be_taken_up_again(zoo: Zoo, table: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(60):
        (data / f"{number}.png").write_bytes(make_image(20, 20, number % 50))
    for split, numbers in (("train", range(30)), ("val", range(30, 45)), ("test", range(45, 60))):
        rows = [{"label": "ab"[n % 2], "image": f"{n}.png", "text": f"{'ab'[n % 2]} {n}"} for n in numbers]
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = PretrainedConfig(
        data, f"hf:{zoo.folder('bert')}", image_size=16, epochs=1, seeds=1, work=tmp_path / "work", out=tmp_path / "out"
    )
    run(config)
    first = (tmp_path / "out" / "pretrained.json").read_text()
    results = json.loads(first)
    assert results[0]["test"]["repeats"] == {"text": 0, "image": 10}  # images 50 to 59 are those of 0 to 9
    assert results[0]["test"]["new_rows"] == 5
    assert "| mean |" in markdown(config, results)
    for split in ("val", "test"):
        for condition, right in results[0][split]["right"].items():
            accuracy = results[0][split]["all"][condition]["calibrated"]["accuracy"]
            assert right.count("1") / len(right) == pytest.approx(accuracy)
    assert str(tmp_path) not in (tmp_path / "out" / "pretrained.md").read_text()
    before = (tmp_path / "work" / "models" / "seed0" / "manifest.json").stat().st_mtime_ns
    run(config)
    assert (tmp_path / "work" / "models" / "seed0" / "manifest.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "pretrained.json").read_text() == first
