"""Listing and removing what training keeps on disk."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mla_serve.commands.cache import CacheConfig, run
from mla_serve.errors import ConfigError
from mla_serve.train.cache.folders import list_folders, note_use
from mla_serve.train.cache.store import ArrayStore

DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with a folder used today and one used 40 days ago."""
    for name, kind, days in (("decoded/image-1", "decoded image", 0), ("features/2", "features of vit", 40)):
        store = ArrayStore(tmp_path / name, "<f4")
        note_use(store, kind, {"width": 8}, tmp_path / "data")
        with store.writing():
            store.append([bytes(32)], [np.ones(1000, np.float32)])
        used = time.time() - days * DAY
        os.utime(store.folder / "about.json", (used, used))
    (tmp_path / "mine.txt").write_text("no cache")
    return tmp_path


def test_each_folder_is_listed_with_its_content_size_age_and_data(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(CacheConfig(cache=cache, json=True))
    new, old = json.loads(capsys.readouterr().out)
    assert new["what"] == "decoded image"
    assert new["data"] == [str((cache / "data").resolve())]
    assert 4000 < new["bytes"] < 6000
    assert (round(new["days"]), round(old["days"])) == (0, 40)
    run(CacheConfig(cache=cache))
    shown = capsys.readouterr().out
    assert "decoded/image-1" in shown
    assert "40.0 days ago" in shown


def test_only_what_is_old_enough_is_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(CacheConfig(cache=cache, clear=True, older=30))
    assert "removed 1 of 1 folders" in capsys.readouterr().out
    assert [folder.path.name for folder in list_folders(cache)] == ["image-1"]
    run(CacheConfig(cache=cache, clear=True))
    assert list_folders(cache) == []
    assert (cache / "mine.txt").is_file()


def test_a_folder_that_is_used_is_kept_until_it_is_not(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ArrayStore(cache / "decoded/image-1", "<f4")
    run(CacheConfig(cache=cache, clear=True))
    assert "image-1: kept, a training is using it" in capsys.readouterr().err
    assert [folder.path.name for folder in list_folders(cache)] == ["image-1"]
    del store
    run(CacheConfig(cache=cache, clear=True))
    assert list_folders(cache) == []


def test_a_folder_that_is_about_to_be_filled_is_kept(cache: Path) -> None:
    store = ArrayStore(cache / "decoded/new", "<f4")
    note_use(store, "decoded image", {}, None)
    run(CacheConfig(cache=cache, clear=True))
    assert [folder.path for folder in list_folders(cache)] == [store.folder]


def test_use_is_noted_with_the_newest_data_first(cache: Path) -> None:
    store = ArrayStore(cache / "features/2", "<f4")
    note_use(store, "features of vit", {}, cache / "other")
    (newest, _) = list_folders(cache)
    assert newest.path == store.folder
    assert newest.data == (str((cache / "other").resolve()), str((cache / "data").resolve()))


def test_a_negative_age_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--older -1"):
        run(CacheConfig(cache=tmp_path, older=-1))


def test_several_trainings_of_one_process_note_their_use_at_once(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "decoded" / "text-1", "<f4")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: note_use(store, "decoded text", {}, tmp_path), range(200)))
    assert [path.name for path in store.folder.glob(".about*")] == []
