"""Find the tables of --data: a file, or the files of a folder that belong together."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mla_serve.errors import DataError
from mla_serve.table.declaration import DATASET_JSON
from mla_serve.table.faults import InvalidValue, join_names
from mla_serve.table.formats import READERS, say_nothing, suffix_of
from mla_serve.table.split_names import SPLITS, is_shard, split_named, split_of_table, stem_of

AMBIGUOUS = (".json", ".txt", ".json.gz", ".txt.gz")
"""Suffixes of tables that other files have, too. In a folder such a file counts if it is called like a split, or is alone."""
DESCRIPTIONS = (DATASET_JSON, "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that describe a data set and are no tables."""
UNREAD = (".xls", ".ods", ".gz", ".zip", ".sav", ".rds", ".dta", ".db", ".sqlite", ".pkl", ".npz", ".h5")
"""Suffixes of tables of formats that are not read."""
NUMBERED_ROWS = (".parquet", ".arrow", ".feather")
"""Formats without lines. Several files of them can be one table, as Spark writes it; its rows are numbered through."""
FAULT_LIST = r"\.faults(-\d+)?\.csv$"
"""Names of the lists of faults that training and evaluate write."""
DEEPEST = 3  # folders and file name, as in default/train/0000.parquet
EXPECTED = (
    "expected a table (.csv, .tsv, .jsonl, .json, .parquet, .arrow, .feather, .xlsx), or a folder with one, with train, val "
    "and test tables, or with a folder of pictures or sounds per class"
)


@dataclass(frozen=True)
class TableFile:
    """A table: its path inside the folder, by which messages call it, and the files that hold its rows."""

    name: str
    parts: tuple[Path, ...]


def find_tables(folder: Path, label: str | None = None) -> list[TableFile]:
    """Return the tables of a folder, train first; none if it holds no table.

    Args: label, the column of the labels, if it is known: of several tables the only one that has it is taken.
    Raises: DataError when they are ambiguous.
    """
    return (
        _saved_dataset(folder)
        or _choose(folder, _candidates(folder), label)
        or _in_folders(folder)
        or _tables(folder, _only_json(folder))
    )


def find_unread(folder: Path, tables: Sequence[TableFile]) -> list[str]:
    """Return the names of the files in a folder that look like tables and are not read."""
    read = {path for table in tables for path in table.parts}
    return [
        path.name
        for path in _visible(folder)
        if path not in read
        and path.name not in DESCRIPTIONS
        and (path.suffix.lower() in UNREAD or (suffix_of(path) and not suffix_of(path).startswith(".txt")))
    ]


def _visible(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of their names, without hidden ones, locks of Excel and lists of faults."""
    found = [path for path in sorted(folder.glob("[!.~]*")) if path.is_file()]
    return [path for path in found if not re.search(FAULT_LIST, path.name)]


def _candidates(folder: Path) -> list[Path]:
    """Return the files of a folder that may be its tables."""
    paths = [path for path in _visible(folder) if suffix_of(path) and path.name not in DESCRIPTIONS]
    return [path for path in paths if suffix_of(path) not in AMBIGUOUS or split_of_table(path.name)]


def _only_json(folder: Path) -> list[Path]:
    """Return the .json file of a folder that has one only."""
    found = [path for path in _visible(folder) if suffix_of(path) in (".json", ".json.gz")]
    return [path for path in found if path.name not in DESCRIPTIONS] if len(found) == 1 else []


def _choose(folder: Path, paths: Sequence[Path], label: str | None) -> list[TableFile]:
    """Return the only table, or those of the splits. Raises: DataError when there are several, and not one per split."""
    if len(paths) <= 1:
        return _tables(folder, paths)
    for loose in (False, True):
        if chosen := _by_split(folder, paths, loose):
            return chosen
    if _same_table(paths) and suffix_of(paths[0]) in NUMBERED_ROWS:
        return [_joined(folder, paths)]
    labelled = [path for path in paths if label is not None and _has_column(path, label)]
    if len(labelled) == 1:
        return _tables(folder, labelled)
    names = join_names([path.name for path in paths])
    raise DataError(
        f"{folder}: holds {len(paths)} tables and none is called train: {names}; choose one: --data {paths[0]}"
    )


def _has_column(path: Path, column: str) -> bool:
    """Return whether the first row of a table has a column."""
    with path.open("rb") as stream, contextlib.closing(READERS[suffix_of(path)](stream, say_nothing)) as lines:
        _, cells = next(lines, (0, {}))
        return not isinstance(cells, InvalidValue) and column in cells


def _by_split(folder: Path, paths: Iterable[Path], loose: bool) -> list[TableFile]:
    """Return the tables whose names are splits; none without one of train. Raises: DataError when two are of one split."""
    by_split: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if split := split_of_table(path.relative_to(folder).as_posix(), loose=loose):
            by_split[split].append(path)
    if "train" not in by_split:
        return []
    for found in by_split.values():
        names = [path.relative_to(folder).as_posix() for path in found]
        if len(found) > 1 and not _same_table(found):
            advice = f"keep one of each, or choose one: --data {found[0]}"
            raise DataError(f"{folder}: got {join_names(names)}, expected one table per split; {advice}")
    return _tables(folder, [path for split in SPLITS for path in by_split.get(split, [])])


def _same_table(paths: Sequence[Path]) -> bool:
    """Return whether files are shards of one table."""
    tables = {(path.parent, stem_of(path.name), suffix_of(path)) for path in paths}
    return len(tables) == 1 and all(is_shard(path.name) for path in paths)


def _in_folders(folder: Path) -> list[TableFile]:
    """Return tables in subfolders: those of a Hugging Face repository, or train/metadata.csv and its like.

    Raises: DataError when there are several data sets.
    """
    found: dict[Path, list[Path]] = defaultdict(list)
    for depth in range(2, DEEPEST + 1):
        for path in sorted(folder.glob("/".join(["[!.]*"] * depth))):
            if suffix_of(path) and suffix_of(path) not in AMBIGUOUS and path.is_file():
                found[path.parent.parent if split_named(path.parent.name) else path.parent].append(path)
    data_sets = {inside: tables for inside, paths in found.items() if (tables := _by_split(folder, paths, loose=False))}
    if len(data_sets) > 1:
        names = join_names([inside.relative_to(folder).as_posix() for inside in data_sets])
        raise DataError(f"{folder}: holds several data sets: {names}; choose one: --data {next(iter(data_sets))}")
    return next(iter(data_sets.values()), [])


def _saved_dataset(folder: Path) -> list[TableFile]:
    """Return the tables that `save_to_disk` of a Hugging Face data set wrote. Raises: DataError when files are missing."""
    if (folder / "dataset_dict.json").is_file():
        folders = [folder / split for split in _read_splits(folder / "dataset_dict.json")]
    elif (folder / "state.json").is_file():
        folders = [folder]
    else:
        return []
    tables = [(each, sorted(each.glob("data-*.arrow"))) for each in folders]
    if empty := [each.name for each, files in tables if not files]:
        raise DataError(
            f"{folder}: no data-*.arrow in {join_names(empty)}; copy the whole folder of the data set again"
        )
    return [_joined(folder, files) for _, files in tables]


def _read_splits(path: Path) -> list[str]:
    """Return the folders of the splits. Raises: DataError."""
    try:
        return [str(name) for name in json.loads(path.read_bytes())["splits"]]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f'{path}: expected {{"splits": [...]}} ({error}); copy the data set again') from None


def _joined(folder: Path, paths: Sequence[Path]) -> TableFile:
    """Return the table that several files hold, such as data-*.arrow."""
    name = paths[0].relative_to(folder)
    if len(paths) > 1:
        name = name.with_name(f"{stem_of(name.name)}-*{suffix_of(name)}")
    return TableFile(name.as_posix(), tuple(paths))


def _tables(folder: Path, paths: Iterable[Path]) -> list[TableFile]:
    return [TableFile(path.relative_to(folder).as_posix(), (path,)) for path in paths]
