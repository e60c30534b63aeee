"""A folder with a folder of files for each class: photos/cat/1.jpg, or photos/train/cat/1.jpg."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mla_serve.errors import DataError
from mla_serve.table.faults import InvalidValue, join_names
from mla_serve.table.formats import Line, say_nothing
from mla_serve.table.formats.encoding import UnknownEncoding, find_encoding
from mla_serve.table.split_names import SPLITS, split_named

_SUFFIXES = {
    "image": ".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .tif .tiff .avif .heic .heif",
    "audio": ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .au .caf .w64 .rf64 .m4a .aac .amr .wma .webm",
    "text": ".txt",
}
KINDS = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""Suffix -> column. Some suffixes are of formats that cannot be decoded; those files become faults."""


@dataclass(frozen=True)
class ClassFolders:
    """The rows of class folders: the lines of one table per split, and what was found, as bytes to hash and as notes."""

    tables: Mapping[str, Sequence[Line]]
    listing: bytes
    notes: tuple[str, ...]


def read_class_folders(folder: Path) -> ClassFolders | None:
    """Make a row of each file, labelled by its folder; None if no file is in a folder. Raises: DataError."""
    media, others = _choose_files(sorted(_walk(folder)))
    if not media:
        return None
    splits = _splits(folder, media)
    unlabelled = [path for path in media if splits and len(path.parts) < 3]
    media = [path for path in media if not splits or len(path.parts) > 2]
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for split, label, paths in _labelled(media, splits):
        rows[split].append({"label": label, **paths})
    ordered = sorted(rows, key=lambda name: SPLITS.index(split_named(name) or "train") if splits else 0)
    tables = {f"{name or folder.name}/": list(_lines(folder, rows[name])) for name in ordered}
    notes = [_describe(rows)]
    notes += [f"not read: {_count_suffixes(others)}"] if others else []
    notes += [f"not read: {_count_suffixes(unlabelled)}, directly in a split, without a label"] if unlabelled else []
    listing = "".join(f"{path}\n{(folder / path).stat().st_size}\n" for path in media)
    return ClassFolders(tables, listing.encode(errors="surrogateescape"), tuple(notes))


def _walk(folder: Path) -> Iterator[PurePosixPath]:
    """Yield the files below a folder, relative to it, without hidden ones and those directly in it."""
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = PurePosixPath(Path(here).relative_to(folder).as_posix())
        if inside.parts:
            yield from (inside / name for name in names if not name.startswith("."))


def _choose_files(files: Sequence[PurePosixPath]) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Return the files that become rows, and the others.

    Texts count if there is nothing else, or if at least half of the other files have one of the same name.
    """
    by_kind: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        by_kind[KINDS.get(path.suffix.lower(), "")].append(path)
    pictures_and_sounds = by_kind["image"] + by_kind["audio"]
    stems = {path.with_suffix("") for path in by_kind["text"]}
    named_alike = sum(path.with_suffix("") in stems for path in pictures_and_sounds)
    used = {"image", "audio"} | ({"text"} if named_alike * 2 >= len(pictures_and_sounds) else set())
    media = sorted(path for kind in used for path in by_kind[kind])
    return media, [path for kind in by_kind.keys() - used for path in by_kind[kind]]


def _count_suffixes(paths: Sequence[PurePosixPath]) -> str:
    """Describe files by their suffixes: "3 .jpg, 1 .db"."""
    counts = Counter(path.suffix.lower() or path.name for path in paths)
    return join_names([f"{count} {suffix}" for suffix, count in sorted(counts.items())])


def _splits(folder: Path, media: Sequence[PurePosixPath]) -> frozenset[str]:
    """Return the folders that are splits; none if the folders are classes. Raises: DataError."""
    tops = {path.parts[0] for path in media}
    splits = frozenset(top for top in tops if split_named(top))
    deep = {path.parts[0] for path in media if len(path.parts) > 2}
    if not any(split_named(top) == "train" for top in splits & deep):
        return frozenset()
    if others := sorted(tops - splits):
        advice = "move them into a class of train, or make every folder a class"
        raise DataError(
            f"{folder}: holds splits, {join_names(sorted(splits))}, and other folders, {join_names(others)}; {advice}"
        )
    twice = [split for split, count in Counter(map(split_named, splits)).items() if count > 1]
    if twice:
        raise DataError(f"{folder}: holds {join_names(sorted(splits))}, expected one folder per split; join them")
    return splits


def _labelled(media: Sequence[PurePosixPath], splits: frozenset[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield split, label and {column: path} of each row. Files of different kinds with the same name are one row."""
    together: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for path in media:
        together[path.with_suffix("")].append(path)
    for name, paths in together.items():
        split, label = name.parts[:2] if splits else ("", name.parts[0])
        kinds = [KINDS[path.suffix.lower()] for path in paths]
        if len(set(kinds)) == len(kinds):
            yield split, label, {kind: str(path) for kind, path in zip(kinds, paths, strict=True)}
        else:
            yield from ((split, label, {kind: str(path)}) for kind, path in zip(kinds, paths, strict=True))


def _lines(folder: Path, rows: Sequence[dict[str, str]]) -> Iterator[Line]:
    """Number the rows from 1, and put texts in place of the paths of their files."""
    for number, row in enumerate(rows, start=1):
        try:
            yield number, row | ({"text": _read_text(folder / row["text"])} if "text" in row else {})
        except (UnknownEncoding, OSError) as error:
            yield number, InvalidValue(f"text: {row['text']}: {error}")


def _read_text(path: Path) -> str:
    with path.open("rb") as stream:
        encoding = find_encoding(stream, say_nothing)
        stream.seek(0)
        return stream.read().decode(encoding, errors="replace")


def _describe(rows: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """Say what became a row and what its label is."""
    every = [row for each in rows.values() for row in each]
    labels = list(dict.fromkeys(row["label"] for row in every))
    columns = [each for each in _SUFFIXES if any(each in row for row in every)]
    counts = join_names([f"{sum(each in row for row in every)} with {each}" for each in columns])
    joined = sum(len(row) > 2 for row in every)
    together = f"; {joined} of them hold files of the same name" if joined else ""
    return f"no table: each file is a row, and its folder is its label ({join_names(labels)}); {len(every)} rows, {counts}{together}"
