"""The built-in data set: the same bytes for a seed, balanced, honest between splits, whole or not there."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mla_serve.errors import ConfigError, DataError
from mla_serve.table import read_payload, read_table

pytest.importorskip("sklearn")
from mla_serve.train.data import keypad
from mla_serve.train.data.keypad import make_keypad, spoil_image, spoil_tone, spoil_word
from mla_serve.train.data.keypad_tables import TONES, WORDS

ROWS = {"train": 60, "val": 20, "test": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keypad(tmp_path_factory.mktemp("keypad") / "data", seed=3, rows=ROWS)


@pytest.fixture(scope="module")
def lines(folder: Path) -> dict[str, list[dict[str, Any]]]:
    texts = {split: (folder / f"{split}.jsonl").read_text(encoding="utf-8") for split in ROWS}
    return {split: [json.loads(line) for line in text.splitlines()] for split, text in texts.items()}


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = make_keypad(tmp_path / "deep" / "again", seed=3, rows=ROWS)
    assert _contents(again) == _contents(folder)
    assert read_table(again).fingerprint == read_table(folder).fingerprint
    other = make_keypad(tmp_path / "other", seed=4, rows=ROWS)
    assert read_table(other).fingerprint != read_table(folder).fingerprint


def test_it_is_a_data_set(folder: Path) -> None:
    table = read_table(folder)
    assert table.modalities == {"image": "image", "audio": "audio", "text": "text"}
    assert {split: len(rows) for split, rows in table.splits.items()} == ROWS
    assert table.classes == tuple("0123456789")
    assert all(len(row.values) == 3 and set(row.present) == {"20", "50", "80"} for row in table.splits["train"])
    assert all(read_payload(value) for rows in table.splits.values() for row in rows for value in row.values.values())
    assert "CC BY 4.0" in json.loads((folder / "dataset.json").read_text())["about"]


def test_classes_are_balanced(lines: dict[str, list[dict[str, Any]]]) -> None:
    for split, count in ROWS.items():
        assert set(Counter(line["label"] for line in lines[split]).values()) == {count // 10}


def test_no_source_image_is_in_two_splits(lines: dict[str, list[dict[str, Any]]]) -> None:
    train, val, test = ({line["meta"]["source"] for line in lines[split]} for split in ROWS)
    assert train.isdisjoint(val | test)
    assert val.isdisjoint(test)
    _, labels = keypad._digits()
    assert all(labels[line["meta"]["source"]] == int(line["label"]) for line in lines["train"])


def test_media_are_small_grey_images_and_short_mono_sounds(
    folder: Path, lines: dict[str, list[dict[str, Any]]]
) -> None:
    for line in lines["test"]:
        with Image.open(folder / line["image"]) as image:
            assert (image.mode, image.size, image.format) == ("L", (28, 28), "PNG")
        info = soundfile.info(folder / line["audio"])
        assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
        assert 0.3 <= info.duration <= 0.6
        assert line["text"]


def test_strengths_are_drawn_independently() -> None:
    generator = np.random.default_rng(0)
    drawn = np.array([[keypad._draw_strength(generator) for _ in range(3)] for _ in range(2000)])
    assert 0 <= drawn.min() < 0.02
    assert 0.95 < drawn.max() <= 1
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.1


def test_masks_drop_at_their_rate_and_keep_one() -> None:
    generator = np.random.default_rng(0)
    drawn = [keypad._draw_present(generator) for _ in range(3000)]
    for rate in (20, 50, 80):
        kept = [len(masks[str(rate)]) for masks in drawn]
        assert min(kept) == 1
        expected = 3 * (1 - rate / 100) + (rate / 100) ** 3  # three drops in a row are mended by keeping one
        assert np.mean(kept) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("label", range(10))
def test_a_clean_tone_holds_the_two_frequencies_of_its_key(label: int) -> None:
    tone = spoil_tone(label, 0.0, np.random.default_rng(label))
    assert tone.dtype == np.int16
    spectrum = np.abs(np.fft.rfft(tone, 8000))  # 1 Hz a bin
    low, high = np.argmax(spectrum[:1075]), 1075 + np.argmax(spectrum[1075:])
    assert np.abs(np.subtract((low, high), TONES[label])).max() <= 3


def test_strength_lowers_what_is_left_of_a_tone() -> None:
    def share(strength: float) -> float:
        shares = []
        for seed in range(20):
            power = np.abs(np.fft.rfft(spoil_tone(5, strength, np.random.default_rng(seed)), 8000)) ** 2
            shares.append(sum(power[int(hertz) - 30 : int(hertz) + 31].sum() for hertz in TONES[5]) / power.sum())
        return float(np.mean(shares))

    assert share(0.0) > 0.9
    assert share(0.0) > share(0.6) > share(1.0)
    assert share(1.0) < 0.2


def test_a_clean_image_is_bright_on_black_with_a_margin() -> None:
    image = spoil_image(np.ones((8, 8)), 0.0, np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert image.shape == (28, 28)
    assert (image[4:24, 4:24] == 255).all()
    assert image.sum() == 255 * 400


def test_a_clean_word_is_itself_and_a_spoiled_one_is_not_empty() -> None:
    generator = np.random.default_rng(0)
    assert spoil_word("seven", "xyz", 0.0, generator) == "seven"
    spoiled = [spoil_word(word, "xyz", 1.0, generator) for word in ("seven", "七") for _ in range(200)]
    assert all(spoiled)
    assert np.mean([word == "seven" for word in spoiled[:200]]) < 0.2


def test_the_words_are_ten_different_ones_a_language_in_many_scripts() -> None:
    assert len(WORDS) >= 20
    assert all(len(words) == len(set(words)) == 10 for words in WORDS.values())
    assert all(unicodedata.is_normalized("NFC", word) for words in WORDS.values() for word in words)
    scripts = {unicodedata.name(words[3][0]).split()[0] for words in WORDS.values()}
    assert {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "CJK", "HANGUL", "HIRAGANA"} <= scripts


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_generation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    calls = []

    def fail(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) > 15:
            raise error

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(error):
        make_keypad(tmp_path / "data", rows=ROWS)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_what_is_there_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    with pytest.raises(DataError, match="expected a new one"):
        make_keypad(tmp_path / "data", rows=ROWS)
    monkeypatch.setattr(keypad, "_check", lambda *arguments: None)  # it came into being meanwhile
    with pytest.raises(DataError, match="cannot be put in place"):
        make_keypad(tmp_path / "data", rows=ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("seed", "rows"),
    [(-1, ROWS), (0, {"train": 9}), (0, {"test": 20}), (0, {"train": 20, "dev": 20}), (0, {"train": 10**6, "val": 10})],
)
def test_unusable_settings_are_refused(tmp_path: Path, seed: int, rows: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"expected|too unequal"):
        make_keypad(tmp_path / "data", seed, rows)
    assert [path.name for path in tmp_path.iterdir()] == []
