"""The names of splits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from mla_serve.table.formats import without_suffix

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "development": "val",
    "eval": "val",
    "evaluation": "val",
    "testing": "test",
    "holdout": "test",
    "hold_out": "test",
}
"""Other common names of splits -> the names used here."""
SHARD = re.compile(r"(.*?)[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?", re.IGNORECASE)
"""The name of one of several files of a table, such as train-00000-of-00002: its first group is the name of the table."""


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, such as val for "Validation"; None for any other name."""
    plain = name.strip().lower().replace("-", "_")
    return plain if plain in SPLITS else SPLIT_ALIASES.get(plain)


def holds_splits(cells: Iterable[object]) -> bool:
    """Return whether the cells of a column, none of them missing, are names of splits, or half of them at least."""
    named = [isinstance(cell, str) and split_named(cell) is not None for cell in cells]
    return any(named) and 2 * sum(named) >= len(named)


def split_of_table(name: str, *, loose: bool = False) -> str | None:
    """Return the split that the path of a table stands for, inside its folder; None if it names none.

    The file names it (train.csv, train-00000-of-00002.parquet) or else a folder (train/metadata.csv). With loose, a word of
    the file name does, too (shop_train.csv).
    """
    path = PurePosixPath(name)
    stem = stem_of(path.name)
    for each in (stem, *reversed(path.parts[:-1])):
        if split := split_named(each):
            return split
    found = {split for word in re.split(r"[^a-z]+", stem.lower()) if (split := split_named(word))} if loose else set()
    return found.pop() if len(found) == 1 else None


def names_split(name: str, split: str) -> bool:
    """Return whether the path of a table holds the very name of a split, so that nothing needs to be said about it."""
    path = PurePosixPath(name)
    return split in (part.lower() for part in (stem_of(path.name), *path.parts[:-1]))


def stem_of(file_name: str) -> str:
    """Return the name of a table: that of its file without suffix and without the number of a shard."""
    stem = without_suffix(file_name)
    match = SHARD.fullmatch(stem)
    return match[1] if match and match[1] else stem


def is_shard(file_name: str) -> bool:
    """Return whether a file is one of several that hold a table, by its name."""
    return stem_of(file_name) != without_suffix(file_name)
