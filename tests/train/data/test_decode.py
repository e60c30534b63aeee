"""Decoding every value of a table once, into the cache."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mla_serve.errors import ConfigError, DataError, InputError
from mla_serve.inputs import AudioInput, ImageInput, Input, TextInput
from mla_serve.table import Table, read_table
from mla_serve.train.cache.folders import list_folders, remove
from mla_serve.train.data import decode_values
from mla_serve.train.data.decode import DecodedTable, decode_table
from mla_serve.train.data.packing import packing_of
from mla_serve.train.data.samples import StoredWindows, make_samples

ROWS = 40
INPUTS: dict[str, Input] = {"image": ImageInput(8, 8), "audio": AudioInput(8000, 4000, 2000)}


def picture(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((24, 24)).save(buffer, kind)
    return buffer.getvalue()


def recording(seed: int, rate: int = 8000, seconds: float = 1.0) -> bytes:
    wave = 0.3 * np.random.default_rng(seed).standard_normal(round(rate * seconds)).clip(-3, 3)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def write(folder: Path, rows: int = ROWS, start: int = 0) -> Path:
    """Write pictures and recordings, and a table of all rows so far."""
    folder.mkdir(exist_ok=True)
    for number in range(start, rows):
        (folder / f"{number}.jpg").write_bytes(picture(number))
        (folder / f"{number}.wav").write_bytes(recording(number, seconds=0.2 + number % 4 / 2))
    cells = [{"label": "ab"[n % 2], "image": f"{n}.jpg", "audio": f"{n}.wav"} for n in range(rows)]
    for row in cells[::5]:
        del row["image"]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cells))
    return folder


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, by name of the modality."""
    decoded: list[str] = []
    for cls in (ImageInput, AudioInput):
        original = cls.decode

        def decode(self: Any, payload: Any, field: str = "", original: Any = original) -> Any:
            decoded.append(field)
            return original(self, payload, field)

        monkeypatch.setattr(cls, "decode", decode)
    return decoded


def windows_of(decoded: DecodedTable, table: Table) -> dict[str, list[np.ndarray]]:
    """Read the windows of every row back."""
    rows = table.splits["train"]
    samples = make_samples(rows, decoded, decoded.inputs, table.task)
    return {
        name: [column.windows[s : s + c].numpy() for s, c in zip(column.start, column.count, strict=True)]  # type: ignore[misc]
        for name, column in samples.columns.items()
    }


def expected(table: Table) -> dict[str, list[np.ndarray]]:
    return {
        name: [
            spec.decode(row.values[name].read_bytes(), name) if name in row.values else np.empty((0, *spec.shape))  # type: ignore[union-attr]
            for row in table.splits["train"]
        ]
        for name, spec in INPUTS.items()
    }


def assert_equal(found: dict[str, list[np.ndarray]], wanted: dict[str, list[np.ndarray]]) -> None:
    for name, arrays in wanted.items():
        for one, other in zip(found[name], arrays, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_value_comes_back_as_it_was_decoded_and_is_decoded_once(tmp_path: Path, seen: list[str]) -> None:
    table = read_table(write(tmp_path / "data"))
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    assert Counter(seen) == {"image": ROWS - ROWS // 5, "audio": ROWS}
    assert_equal(windows_of(decoded, table), expected(table))
    seen.clear()
    assert_equal(windows_of(decode_table(table, INPUTS, tmp_path / "cache"), table), expected(table))
    assert seen.count("audio") == ROWS  # by `expected` alone


def test_rows_that_arrive_later_are_decoded_alone(tmp_path: Path, seen: list[str]) -> None:
    decode_table(read_table(write(tmp_path / "data")), INPUTS, tmp_path / "cache")
    table = read_table(write(tmp_path / "data", ROWS + 3, ROWS))
    seen.clear()
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    assert Counter(seen) == {"image": 2, "audio": 3}
    assert_equal(windows_of(decoded, table), expected(table))


def test_a_changed_file_is_never_served_stale(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    table = read_table(folder)
    decode_table(table, INPUTS, tmp_path / "cache")
    before, content = (folder / "7.wav").stat(), recording(99, seconds=1.7)
    assert len(content) == before.st_size
    (folder / "7.wav").write_bytes(content)
    os.utime(folder / "7.wav", ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    np.testing.assert_array_equal(windows_of(decoded, table)["audio"][7], INPUTS["audio"].decode(content, "audio"))


def test_other_settings_are_decoded_apart(tmp_path: Path, seen: list[str]) -> None:
    table = read_table(write(tmp_path / "data"))
    decode_table(table, INPUTS, tmp_path / "cache")
    seen.clear()
    other = {"image": ImageInput(9, 9), "audio": INPUTS["audio"]}
    decoded = decode_table(table, other, tmp_path / "cache")
    assert set(seen) == {"image"}
    assert windows_of(decoded, table)["image"][1].shape == (1, 3, 9, 9)


@pytest.mark.parametrize("damage", ["flip", "truncate", "index"])
def test_a_damaged_cache_is_mended(tmp_path: Path, damage: str, seen: list[str]) -> None:
    table = read_table(write(tmp_path / "data"))
    decode_table(table, INPUTS, tmp_path / "cache")
    (records,) = (tmp_path / "cache").glob("decoded/audio-*/" + ("index" if damage == "index" else "records"))
    content = bytearray(records.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2 + 1]
    else:
        content[len(content) // 2] ^= 16
    records.write_bytes(content)
    seen.clear()
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    assert set(seen) == {"audio"}
    assert 0 < len(seen) < ROWS
    assert_equal(windows_of(decoded, table), expected(table))


def test_values_that_cannot_be_decoded_become_faults_of_their_rows(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    table = read_table(folder)
    (folder / "1.jpg").write_bytes(b"no picture")
    (folder / "2.jpg").unlink()
    (folder / "3.wav").write_bytes(b"RIFF")
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    assert [(fault.place, fault.modality) for fault in table.faults.found] == [
        (("train.jsonl", 2), "image"),
        (("train.jsonl", 3), "image"),
        (("train.jsonl", 4), "audio"),
    ]
    with pytest.raises(DataError) as caught:
        table.faults.raise_if_any()
    lines = str(caught.value).splitlines()
    assert "3 faults" in lines[0]
    assert lines[1].startswith("  train.jsonl:2: image: '1.jpg': this is ")
    assert "cannot be read (No such file" in lines[2]
    assert ("train.jsonl", 2) not in decoded.keys["image"]
    assert ("train.jsonl", 2) in decoded.keys["audio"]


def test_bugs_of_a_decoder_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: object, payload: object, field: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ImageInput, "decode", decode)
    with pytest.raises(ZeroDivisionError):
        decode_table(read_table(write(tmp_path / "data")), INPUTS, tmp_path / "cache")


def test_processes_give_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "data", 70)
    (folder / "1.jpg").write_bytes(b"no picture")
    table = read_table(folder)
    monkeypatch.setattr(decode_values, "FEWEST", 20)
    monkeypatch.setattr(decode_values, "CHUNK", 8)
    assert decode_values.count_processes(139, 3) == 3
    decoded = decode_table(table, INPUTS, tmp_path / "cache", threads=3)
    assert [fault.place for fault in table.faults.found] == [("train.jsonl", 2)]
    (folder / "1.jpg").write_bytes(picture(1))
    again = decode_table(table, INPUTS, tmp_path / "other", threads=1)
    assert dict(again.keys["audio"]) == decoded.keys["audio"]
    assert windows_of(again, table)["audio"][5].tolist() == expected(table)["audio"][5].tolist()
    for row in (row for row in table.splits["train"] if row.place in decoded.keys["image"]):
        one, other = (each.read_fingerprints()(row)["image"] for each in (decoded, again))
        assert one.digest == other.digest
        np.testing.assert_array_equal(one.sketch, other.sketch)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Crashing(ImageInput):
    """A decoder that ends its process."""

    def decode(self, payload: Any, field: str = "image") -> np.ndarray:
        if payload == b"crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(payload, field)


def test_a_file_that_crashes_its_decoder_is_a_fault_and_the_others_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(Crashing, "__module__", Path(__file__).stem)
    monkeypatch.setitem(sys.modules, Path(__file__).stem, sys.modules[__name__])
    paths = []
    for number in range(10):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(b"crash" if number == 4 else picture(number))
    with decode_values.Decoders(2) as decoders:
        results = [result for part in decoders.decode(Crashing(8, 8), "image", paths) for result in part]
    assert [isinstance(result, decode_values.Failed) for result in results] == [n == 4 for n in range(10)]
    assert "crashed on this file" in results[4].message  # type: ignore[union-attr]


DECODE = """
import sys
from pathlib import Path
from mla_serve.inputs import AudioInput, ImageInput
from mla_serve.table import read_table
from mla_serve.train.data.decode import decode_table
inputs = {"image": ImageInput(8, 8), "audio": AudioInput(8000, 4000, 2000)}
decode_table(read_table(Path(sys.argv[1])), inputs, Path(sys.argv[2]), threads=1)
"""


def test_a_killed_process_loses_nothing_of_what_it_had_stored(tmp_path: Path, seen: list[str]) -> None:
    rows = 600
    table = read_table(write(tmp_path / "data", rows))
    process = subprocess.Popen([sys.executable, "-c", DECODE, str(tmp_path / "data"), str(tmp_path / "cache")])
    store = DecodedTable(tmp_path / "cache", INPUTS, {}).store("image")
    while len(store) < 100:
        store.refresh()
    process.kill()
    process.wait()
    store.refresh()
    kept = len(store) + len(DecodedTable(tmp_path / "cache", INPUTS, {}).store("audio"))
    decoded = decode_table(table, INPUTS, tmp_path / "cache", threads=1)
    assert len(seen) == rows + rows - rows // 5 - kept
    assert_equal(windows_of(decoded, table), expected(table))


def test_of_two_processes_one_decodes_and_the_other_waits(tmp_path: Path) -> None:
    write(tmp_path / "data", 300)
    command = [sys.executable, "-c", DECODE, str(tmp_path / "data"), str(tmp_path / "cache")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    for name, count in (("image", 240), ("audio", 300)):
        store = DecodedTable(tmp_path / "cache", INPUTS, {}).store(name)
        assert len(store) == len(store.entries) == count


def test_a_process_that_lacks_the_values_decodes_them_again_and_refuses_others(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    table = read_table(folder)
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    elsewhere = dataclasses.replace(decoded, cache=tmp_path / "elsewhere")
    elsewhere.complete(table)
    assert_equal(windows_of(elsewhere, table), expected(table))
    (folder / "3.wav").write_bytes(recording(77))
    with pytest.raises(DataError, match=r"audio of train.jsonl:4 has changed"):
        dataclasses.replace(decoded, cache=tmp_path / "third").complete(table)


def test_a_cache_that_a_table_was_decoded_into_is_kept_until_the_table_is_gone(tmp_path: Path) -> None:
    table, cache = read_table(write(tmp_path / "data")), tmp_path / "cache"
    decoded = decode_table(table, INPUTS, cache)
    assert [remove(folder) for folder in list_folders(cache)] == [False, False]
    sent = pickle.loads(pickle.dumps(decoded))
    del decoded
    assert_equal(windows_of(sent, table), expected(table))
    assert [remove(folder) for folder in list_folders(cache)] == [False, False]
    del sent
    assert [remove(folder) for folder in list_folders(cache)] == [True, True]


def test_values_that_left_the_cache_are_an_error_and_not_those_of_other_rows(tmp_path: Path) -> None:
    table, cache = read_table(write(tmp_path / "data")), tmp_path / "cache"
    decoded = decode_table(table, INPUTS, cache)
    for folder in list_folders(cache):
        shutil.rmtree(folder.path)
    decode_table(read_table(write(tmp_path / "other", 3)), INPUTS, cache)
    for read in (lambda: windows_of(decoded, table), decoded.read_fingerprints):
        with pytest.raises(DataError, match="values are missing that were stored before"):
            read()


def test_a_disk_without_room_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("mla_serve.train.data.decode.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match=r"32 values of image take at least 0.0 GB.*--cache"):
        decode_table(read_table(write(tmp_path / "data")), INPUTS, tmp_path / "cache")


@pytest.mark.parametrize("rate", [8000, 11025])
@pytest.mark.parametrize("mark", [False, True])
def test_recordings_of_16_bits_are_stored_exactly_and_others_within_half_a_step(rate: int, mark: bool) -> None:
    spec = AudioInput(8000, 12_000, 6000, mark_padding=mark)
    windows = spec.decode(recording(1, rate), "audio")
    packing = packing_of(spec)
    again = packing.unpack(packing.pack(windows))
    assert again.dtype == windows.dtype
    np.testing.assert_array_equal(again == 2, windows == 2)
    peak = np.abs(windows[windows != 2]).max()
    assert np.abs(again - windows).max() <= (0 if rate == 8000 else peak / 65534 * 1.001)


@pytest.mark.parametrize("wave", [np.zeros(100), np.full(100, -1.0), np.linspace(-1e-4, 1e-4, 100), np.ones(100)])
def test_silence_and_full_scale_can_be_stored(wave: np.ndarray) -> None:
    packing = packing_of(AudioInput(8000, 100, 50))
    windows = wave[None].astype(np.float32)
    np.testing.assert_allclose(packing.unpack(packing.pack(windows)), windows, atol=np.abs(wave).max() / 65534 * 1.001)


def test_windows_on_disk_are_indexed_as_a_tensor_is(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "data"))
    decoded = decode_table(table, INPUTS, tmp_path / "cache")
    column = make_samples(table.splits["train"], decoded, INPUTS, table.task).columns["audio"]
    assert isinstance(column.windows, StoredWindows)
    whole = column.windows[:]
    assert whole.shape == tuple(column.windows.shape)
    index = torch.tensor([5, 0, 5])
    assert torch.equal(column.windows[index], whole[index])
    assert torch.equal(column.windows[3:9], whole[3:9])


def test_texts_are_stored_once_and_come_back(tmp_path: Path) -> None:
    texts: Sequence[str] = ("one", "two", "one")
    lines = [{"label": "ab"[n % 2], "text": text} for n, text in enumerate(texts)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table, inputs = read_table(tmp_path), {"text": _words()}
    decoded = decode_table(table, inputs, tmp_path / "cache")
    assert len(decoded.store("text")) == 2
    windows = make_samples(table.splits["train"], decoded, inputs, table.task).columns["text"].windows[:]
    assert windows.dtype == torch.int64
    assert torch.equal(
        windows, torch.from_numpy(np.concatenate([inputs["text"].decode(text, "text") for text in texts]))
    )


def _words() -> TextInput:
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 1, "one": 2, "two": 3}, unk_token="?"))
    return TextInput(tokenizer.to_str(), length=4)


def test_an_input_error_is_a_fault_and_any_other_error_is_raised() -> None:
    class Refusing(ImageInput):
        def decode(self, payload: Any, field: str = "image") -> np.ndarray:
            raise InputError(field, "not this one")

    (result,) = decode_values.decode_values(Refusing(8, 8), "image", [b"x"])  # type: ignore[list-item]
    assert result == decode_values.Failed("not this one")


GATHER = """
import sys
from pathlib import Path
import torch
from mla_serve.inputs import AudioInput
from mla_serve.table import read_table
from mla_serve.train.data.decode import decode_table
from mla_serve.train.data.samples import batches_of, make_samples
inputs = {"audio": AudioInput(8000, 80_000, 40_000)}
table = read_table(Path(sys.argv[1]))
decoded = decode_table(table, inputs, Path(sys.argv[2]), threads=1)
samples = make_samples(table.splits["train"], decoded, inputs, table.task)
for _ in range(2):
    for part in batches_of(samples.columns["audio"].windows):
        part.sum()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recordings(tmp_path: Path) -> None:
    """Decoded, 1,000 recordings of 10 s are 320 MB as float32."""
    held = []
    for rows in (100, 1100):
        folder = tmp_path / str(rows)
        folder.mkdir()
        for number in range(rows):
            (folder / f"{number}.wav").write_bytes(recording(number, seconds=10))
        lines = [json.dumps({"label": "ab"[n % 2], "audio": f"{n}.wav"}) + "\n" for n in range(rows)]
        (folder / "train.jsonl").write_text("".join(lines))
        command = [sys.executable, "-c", GATHER, str(folder), str(tmp_path / "cache")]
        held.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert held[1] - held[0] < 60_000  # kB
