"""Arrays by content: what is stored comes back, damage is noticed, and an interrupted writer leaves nothing half written."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mla_serve.errors import ConfigError, DataError
from mla_serve.train.cache.locks import is_file_of, open_locked
from mla_serve.train.cache.store import INDEX, RECORDS, ArrayStore

RECORD = np.dtype(("<f4", (5,)))
INFO = np.dtype([("mark", "u1", 3)])
KEYS = [hashlib.sha256(bytes([number])).digest() for number in range(6)]
PARTS = [np.random.default_rng(number).random((number + 1, 5), np.float32) for number in range(6)]


def opened(folder: Path) -> ArrayStore:
    return ArrayStore(folder, RECORD, INFO)


def put(folder: Path, numbers: range) -> None:
    store = opened(folder)
    keys, parts = [KEYS[n] for n in numbers], [PARTS[n] for n in numbers]
    with store.writing():
        store.append(keys, parts, np.array([((n,) * 3,) for n in numbers], INFO))


def read(store: ArrayStore, number: int) -> np.ndarray:
    entry = store.entries[store.find([KEYS[number]])[0]]
    assert entry["info"]["mark"].tolist() == [number] * 3
    return store.records()[entry["start"] : entry["start"] + entry["count"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, range(4))
    put(tmp_path, range(4, 6))
    return tmp_path


def test_what_is_stored_comes_back(folder: Path) -> None:
    store = opened(folder)
    assert len(store) == 6
    assert (store.find_whole([*KEYS, bytes(32)]) >= 0).tolist() == [True] * 6 + [False]
    for number, part in enumerate(PARTS):
        np.testing.assert_array_equal(read(store, number), part)


def test_an_open_store_sees_what_another_process_adds(tmp_path: Path) -> None:
    put(tmp_path, range(2))
    store = opened(tmp_path)
    put(tmp_path, range(2, 6))
    store.refresh()
    np.testing.assert_array_equal(read(store, 5), PARTS[5])


def test_a_key_that_is_missing_is_an_error_and_no_other_record(folder: Path) -> None:
    store = opened(folder)
    assert store.find_all(KEYS).tolist() == list(range(6))
    with pytest.raises(DataError, match=r"1 of 2 values are missing.*same command again"):
        store.find_all([KEYS[0], bytes(32)])


def test_a_folder_that_was_removed_by_other_means_is_read_anew(folder: Path) -> None:
    store = opened(folder)
    shutil.rmtree(folder)
    put(folder, range(4, 6))
    with store.writing():
        store.append(KEYS[:1], PARTS[:1], np.array([((0,) * 3,)], INFO))
    assert (store.find(KEYS) >= 0).tolist() == [True, False, False, False, True, True]
    for number in (0, 4, 5):
        np.testing.assert_array_equal(read(store, number), PARTS[number])


def test_who_waited_for_a_lock_on_a_removed_file_takes_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = open_locked(path, fcntl.LOCK_EX)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(open_locked, path, fcntl.LOCK_EX)
        path.unlink()
        os.close(held)
        taken = waiting.result()
    assert is_file_of(taken, path)
    with pytest.raises(BlockingIOError):
        open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(taken)


@pytest.mark.parametrize("number", range(6))
def test_a_flipped_bit_is_noticed_and_that_content_can_be_stored_again(folder: Path, number: int) -> None:
    content = bytearray((folder / RECORDS).read_bytes())
    content[sum(range(number + 1)) * RECORD.itemsize + 3] ^= 1
    (folder / RECORDS).write_bytes(content)
    assert np.flatnonzero(opened(folder).find_whole(KEYS) < 0).tolist() == [number]
    put(folder, range(number, number + 1))
    store = opened(folder)
    assert (store.find_whole(KEYS) >= 0).all()
    np.testing.assert_array_equal(read(store, number), PARTS[number])


def test_a_damaged_entry_of_the_index_is_left_aside(folder: Path) -> None:
    content = bytearray((folder / INDEX).read_bytes())
    content[len(content) // 6 * 2 + 40] ^= 1
    (folder / INDEX).write_bytes(content)
    assert np.flatnonzero(opened(folder).find_whole(KEYS) < 0).tolist() == [2]
    put(folder, range(2, 3))
    assert (opened(folder).find_whole(KEYS) >= 0).all()


@pytest.mark.parametrize("name", [RECORDS, INDEX])
@pytest.mark.parametrize("left", [0, 1, 57, 200])
def test_a_truncated_file_loses_only_what_it_lacks(folder: Path, name: str, left: int) -> None:
    os.truncate(folder / name, left)
    store = opened(folder)
    missing = np.flatnonzero(store.find_whole(KEYS) < 0)
    assert 0 < len(missing) <= 6
    for number in missing:
        put(folder, range(number, number + 1))
    store = opened(folder)
    assert (store.find_whole(KEYS) >= 0).all()
    for number, part in enumerate(PARTS):
        np.testing.assert_array_equal(read(store, number), part)


WRITE = """
import sys, numpy as np, hashlib
from pathlib import Path
from mla_serve.train.cache.store import ArrayStore
store = ArrayStore(Path(sys.argv[1]), np.dtype(("<f4", (50_000,))))
with store.writing():
    print("locked", flush=True)
    for number in range(100_000):
        store.append([hashlib.sha256(str(number).encode()).digest()], [np.full((1, 50_000), number, np.float32)])
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_process_had_stored_stays_and_its_tail_is_removed(
    tmp_path: Path, writer: subprocess.Popen[bytes]
) -> None:
    assert writer.stdout
    writer.stdout.readline()
    large = np.dtype(("<f4", (50_000,)))
    while len(store := ArrayStore(tmp_path, large)) < 20:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    store.refresh()
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(b"half a record")
    count = len(store)
    keys = [hashlib.sha256(str(number).encode()).digest() for number in range(count + 1)]
    with store.writing():
        store.append(keys[-1:], [np.full((1, 50_000), count, np.float32)])
    found = ArrayStore(tmp_path, large)
    entries = found.entries[found.find_whole(keys)]
    np.testing.assert_array_equal(found.records()[entries["start"], 0], np.arange(count + 1))
    assert (tmp_path / RECORDS).stat().st_size == (count + 1) * large.itemsize


def test_a_second_writer_waits_for_the_first_and_says_so(
    tmp_path: Path, writer: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert writer.stdout
    writer.stdout.readline()
    ends = f"import os, signal, time; time.sleep(1); os.kill({writer.pid}, signal.SIGKILL)"
    killer = subprocess.Popen([sys.executable, "-c", ends])
    store = ArrayStore(tmp_path, np.dtype(("<f4", (50_000,))))
    with store.writing("waiting for it"):
        assert len(store) > 0
        killer.wait()
    assert "waiting for it" in capsys.readouterr().err


def test_a_full_disk_is_an_error_that_says_what_to_do_and_loses_nothing(folder: Path) -> None:
    size = (folder / RECORDS).stat().st_size
    store = opened(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))
    try:
        with store.writing(), pytest.raises(ConfigError, match=r"mla-serve cache"):
            store.append([bytes(32)], [np.ones((1000, 5), np.float32)], np.zeros(1, INFO))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (folder / RECORDS).stat().st_size == size
    assert (opened(folder).find_whole(KEYS) >= 0).all()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = opened(tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="cannot be written"), store.writing():
        pass
