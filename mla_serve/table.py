"""The data set format: read it, check it, list its faulty rows.

A data set is a folder: train/val/test tables, or one table alone, under any name, with a column `split`.

    data/
      train.jsonl  val.jsonl  test.jsonl       or .csv, or .parquet; val may be absent (see split_validation)
      dataset.json                             optional: other modalities, groups, a word about where the data come from
      images/...  audio/...                    media files, anywhere inside the folder

One row of a .jsonl table:

    {"label": "7", "image": "images/12.png", "audio": "audio/12.wav", "text": "seven",
     "id": "a12", "present": {"50": ["image"]}, "meta": {"speaker": "theo"}}

dataset.json:

    {"modalities": {"pixels": "vector", "rear_camera": "image"}, "group": {"audio": "meta.speaker"}, "about": "..."}

Only `label` and one value in one modality are required. An empty or absent value is a missing modality.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath, PureWindowsPath

from mla_serve.errors import ConfigError, DataError, InputError

Value = Path | str | tuple[float, ...]
Payload = bytes | str | tuple[float, ...]
Cells = Mapping[str, object]
Complain = Callable[[int, str], None]  # line, what is wrong

SPLITS = ("train", "val", "test")
STANDARD = {"image": "image", "audio": "audio", "text": "text"}
RESERVED = ("id", "label", "split", "present")
OPTIONS = ("modalities", "group", "about")
SHOWN = 20
EXPECTED = (
    "a data set folder holds train.jsonl, val.jsonl and test.jsonl (or .csv, .parquet), or one such table alone "
    "with a column 'split'; each row has a 'label' and a value in at least one of 'image', 'audio' (file paths inside "
    "the folder) and 'text'"
)


@dataclass(frozen=True)
class Row:
    """One labelled sample.

    values: modality -> absolute path of its file, its text, or its numbers; only the modalities that are there.
    present: missing rate in percent ("20") -> the modalities left at that rate, a non-empty subset of `values`.
    groups: modality -> group (speaker, writer, ...), where known.
    """

    id: str
    label: str
    values: Mapping[str, Value]
    present: Mapping[str, frozenset[str]]
    groups: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A data set without structural faults; what its media files hold is not looked at (see check_rows).

    modalities: name -> kind, in a stable order: image, audio, text, then as declared; those that occur or are declared.
    splits: name -> rows in the order of the table; a split that is not there has no key.
    classes: the labels of train, sorted, as numbers where all are integers.
    fingerprint: sha256 of the tables and dataset.json, not of the media.
    """

    folder: Path
    modalities: Mapping[str, str]
    splits: Mapping[str, tuple[Row, ...]]
    classes: tuple[str, ...]
    fingerprint: str


def read_table(folder: Path) -> Table:
    """Read a data set folder and check its structure.

    Raises: DataError with the number of faults and the first 20 of them, with table and line (.parquet: row), from 1;
            ConfigError when a .parquet table is given and pyarrow is not installed.
    """
    folder = _existing(folder)
    tables = _find_tables(folder)
    sources = [(path.name, _read_bytes(path)) for path in tables]
    declaration = folder / "dataset.json"
    declared = _read_bytes(declaration) if declaration.is_file() else None
    faults = _Faults(folder, tuple(path.name for path in tables))
    options = _parse_options(declared, faults)
    records = _read_records(sources, options, faults)
    classes = _check_labels(records, faults)
    values = _read_values(records, options.kinds, folder, faults)
    used = {name for row in values for name in row} | set(options.declared)
    modalities = {name: kind for name, kind in options.kinds.items() if name in used}
    rows = _build_rows(records, values, modalities, options, faults)
    faults.refuse()
    splits = {
        split: tuple(row for record, row in zip(records, rows, strict=True) if record.split == split)
        for split in SPLITS
    }
    fingerprint = _fingerprint([*sources, *([("dataset.json", declared)] if declared is not None else [])])
    return Table(folder, modalities, {split: found for split, found in splits.items() if found}, classes, fingerprint)


def payload(value: Value) -> Payload:
    """Return what a decoder takes: the bytes of a file, the text or the numbers themselves.

    Raises: DataError when the file can no longer be read.
    """
    return _read_bytes(value) if isinstance(value, Path) else value


def check_rows(table: Table, splits: Sequence[str], decode: Callable[[str, Payload], object]) -> None:
    """Decode every value of the named splits once, in threads, and list the rows that fail.

    Args: decode(modality, payload) returns anything, or raises InputError.
    Raises: DataError with the number of faulty values and the first 20 of them: split, id, modality, file, reason.
    """
    unknown = [split for split in splits if split not in table.splits]
    if unknown:
        raise DataError(
            f"{table.folder}: got the split {unknown[0]!r}, expected some of {_listed(table.splits)}; choose those"
        )
    jobs = [(split, row) for split in splits for row in table.splits[split]]

    def check(job: tuple[str, Row]) -> list[str]:
        return _decoding_faults(table.folder, *job, decode)

    with ThreadPoolExecutor() as pool:
        found = list(chain.from_iterable(pool.map(check, jobs)))
    if found:
        raise DataError(_summary(table.folder, found, "value", "that cannot be decoded; repair or remove them"))


def _decoding_faults(folder: Path, split: str, row: Row, decode: Callable[[str, Payload], object]) -> list[str]:
    """Return one line for each value of a row that cannot be decoded."""
    found = []
    for modality, value in row.values.items():
        try:
            decode(modality, payload(value))
        except (InputError, DataError) as error:
            file = f" ({value.relative_to(folder).as_posix()})" if isinstance(value, Path) else ""
            reason = error.message if isinstance(error, InputError) else str(error)
            found.append(f"{split}, id {_short(row.id)}, {modality}{file}: {reason}")
    return found


# ---- faults


class _Unusable(ValueError):
    """A value that cannot be used; the message says why."""


class _Faults:
    """Collect what is wrong, to be told all at once, in the order of the tables."""

    def __init__(self, folder: Path, tables: Sequence[str]) -> None:
        self.folder = folder
        self.tables = tuple(tables)
        self.order = {name: position for position, name in enumerate(("dataset.json", *tables))}
        self.found: list[tuple[int, int, str]] = []

    def add(self, table: str, line: int, message: str) -> None:
        """Note a fault; line 0 means the whole table."""
        unit = "row " if table.lower().endswith(".parquet") else ""
        place = f"{table}:{unit}{line}" if line else table
        self.found.append((self.order[table], line, f"{place}: {message}"))

    def refuse(self) -> None:
        """Raise DataError if there is any fault."""
        if self.found:
            found = [text for *_, text in sorted(self.found, key=lambda fault: fault[:2])]
            raise DataError(_summary(self.folder, found, "fault", "in the data set"))


def _summary(folder: Path, found: Sequence[str], noun: str, rest: str) -> str:
    """Write the count and the first 20 lines."""
    count = f"{len(found)} {noun}{'s' if len(found) > 1 else ''} {rest}"
    more = f"; the first {SHOWN}" if len(found) > SHOWN else ""
    return "\n  ".join([f"{folder}: {count}{more}:", *found[:SHOWN]])


def _short(value: object) -> str:
    """Quote a value, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    """Join names, the first ten."""
    return ", ".join([*islice(names, 10), *(["..."] if len(names) > 10 else [])]) or "none"


# ---- folder and files


def _existing(folder: Path) -> Path:
    """Return the absolute folder. Raises: DataError when it is not one."""
    if not folder.is_dir():
        given = "a file" if folder.exists() else "a folder that does not exist"
        raise DataError(f"{folder}: got {given}, expected a data set folder; {EXPECTED}")
    return folder.resolve()


def _find_tables(folder: Path) -> list[Path]:
    """Find train, val and test, or the one table of the folder. Raises: DataError when it is unclear which they are."""
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in READERS and path.is_file() and path.name[0] != "."
    )
    if len(found) == 1:
        return found
    named = {split: [path for path in found if path.stem == split] for split in SPLITS}
    for split, paths in named.items():
        if len(paths) > 1:
            names = _listed([path.name for path in paths])
            raise DataError(f"{folder}: got {names}, expected one table per split; keep one for {split}")
    if not named["train"]:
        names = _listed([path.name for path in found])
        raise DataError(f"{folder}: no train split; tables found: {names}; {EXPECTED}")
    return [path for paths in named.values() for path in paths]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check that it is there and readable") from error


def _fingerprint(sources: Sequence[tuple[str, bytes]]) -> str:
    """Hash names, lengths and bytes, so that no two different sets of files give one stream."""
    digest = hashlib.sha256()
    for name, data in sources:
        digest.update(f"{name}\n{len(data)}\n".encode() + data)
    return digest.hexdigest()


# ---- dataset.json


@dataclass(frozen=True)
class _Options:
    """dataset.json: kind of each standard and declared modality; the declared names; modality -> group column."""

    kinds: Mapping[str, str]
    declared: tuple[str, ...]
    groups: Mapping[str, str]


def _parse_options(data: bytes | None, faults: _Faults) -> _Options:
    """Read dataset.json; what cannot be used is noted and left out."""
    try:
        given = {} if data is None else json.loads(data.decode("utf-8-sig"))
        if not isinstance(given, dict):
            raise _Unusable(f"expected an object with any of {_listed(OPTIONS)}, got {_short(given)}")
    except (ValueError, RecursionError) as error:
        faults.add("dataset.json", 0, f"not usable JSON: {error}")
        given = {}
    for name in given:
        if name not in OPTIONS:
            faults.add(
                "dataset.json",
                0,
                f"unknown entry {_short(name)}; expected {_listed(OPTIONS)}; remove it or correct its spelling",
            )
    declared = _parse_modalities(given.get("modalities", {}), faults)
    kinds = {**STANDARD, **declared}
    return _Options(kinds, tuple(declared), _parse_groups(given.get("group", {}), kinds, faults))


def _parse_modalities(given: object, faults: _Faults) -> dict[str, str]:
    """Return the declared modalities that can be used: name -> kind."""
    if not isinstance(given, dict):
        faults.add("dataset.json", 0, f'modalities: expected {{"name": "kind"}}, got {_short(given)}')
        return {}
    usable = {}
    for name, kind in given.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in RESERVED:
            rule = f"letters, digits and _, beginning with a letter, and none of {_listed(RESERVED)}"
            faults.add(
                "dataset.json",
                0,
                f"modalities: the name {_short(name)} cannot be used; expected {rule}; rename the column",
            )
        elif not isinstance(kind, str) or kind not in KINDS:
            faults.add(
                "dataset.json", 0, f"modalities: {name}: unknown kind {_short(kind)}; expected one of {_listed(KINDS)}"
            )
        else:
            usable[name] = kind
    return usable


def _parse_groups(given: object, kinds: Mapping[str, str], faults: _Faults) -> dict[str, str]:
    """Return modality -> column; one column alone is the group of all modalities."""
    if isinstance(given, str):
        return dict.fromkeys(kinds, given)
    if not isinstance(given, dict) or not all(isinstance(column, str) for column in given.values()):
        faults.add("dataset.json", 0, f'group: expected "column" or {{"modality": "column"}}, got {_short(given)}')
        return {}
    for name in given:
        if name not in kinds:
            faults.add("dataset.json", 0, f"group: unknown modality {_short(name)}; expected some of {_listed(kinds)}")
    return {name: column for name, column in given.items() if name in kinds}


# ---- tables


@dataclass(frozen=True)
class _Record:
    """One row as it stands in its table; number counts the rows of a split from 0."""

    table: str
    line: int
    split: str
    number: int
    cells: Cells


def _read_records(sources: Sequence[tuple[str, bytes]], options: _Options, faults: _Faults) -> list[_Record]:
    """Read all tables; rows that cannot be read are noted and left out."""
    records: list[_Record] = []
    numbers: Counter[str] = Counter()
    for name, data in sources:
        rows = _read_rows(name, data, options, faults)
        split = _split_of_table(name, rows, len(sources), faults)
        for line, cells in rows:
            try:
                chosen = split or _split_of_row(cells)
            except _Unusable as unusable:
                faults.add(name, line, str(unusable))
                continue
            records.append(_Record(name, line, chosen, numbers[chosen], cells))
            numbers[chosen] += 1
    for column in dict.fromkeys(options.groups.values()):
        if records and all(_missing(_lookup(record.cells, column)) for record in records):
            faults.add("dataset.json", 0, f"group: no row has a value at {column!r}; correct its spelling or remove it")
    return records


def _read_rows(name: str, data: bytes, options: _Options, faults: _Faults) -> list[tuple[int, Cells]]:
    """Read one table: line and cells of each row. Without any label column that is the one fault told."""
    wanted = {
        *RESERVED,
        *options.kinds,
        *options.groups.values(),
        *(column.split(".")[0] for column in options.groups.values()),
    }
    before = len(faults.found)
    reader = READERS[Path(name).suffix.lower()]
    rows = list(reader(data, wanted, lambda line, message: faults.add(name, line, message)))
    if not rows and len(faults.found) == before:
        faults.add(name, 0, "holds no rows; fill it or remove it")
    if rows and not any("label" in cells for _, cells in rows):
        columns = _listed(list(dict.fromkeys(key for _, cells in rows for key in cells)))
        faults.add(
            name,
            0,
            f"no column 'label'; of the columns that can be used it has: {columns}; rename the column of the classes",
        )
        return []
    return rows


def _split_of_table(name: str, rows: Sequence[tuple[int, Cells]], tables: int, faults: _Faults) -> str | None:
    """Return the split that a table's name says; None where its rows say it."""
    stem = Path(name).stem
    if tables > 1:
        return stem
    if any("split" in cells for _, cells in rows):
        return None
    if rows and stem not in SPLITS:
        faults.add(
            name,
            0,
            f"one table alone needs a column 'split' with {_listed(SPLITS)}; add it, or name the tables by their split",
        )
    return stem if stem in SPLITS else "train"


def _split_of_row(cells: Cells) -> str:
    split = cells.get("split")
    if not isinstance(split, str) or split.strip() not in SPLITS:
        raise _Unusable(f"split: expected one of {_listed(SPLITS)}, got {_short(split)}; correct it")
    return split.strip()


def _read_jsonl(data: bytes, wanted: set[str], complain: Complain) -> Iterator[tuple[int, Cells]]:
    """Read one JSON object per line; blank lines are skipped."""
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            cells = json.loads(raw.decode())
            if not isinstance(cells, dict):
                raise _Unusable("not an object")
            if b"\\ud" in raw.lower():  # half of a surrogate pair is legal in JSON and can be written nowhere else
                json.dumps(cells, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            complain(
                line, f"expected one JSON object, got {_short(raw.decode(errors='replace'))} ({error}); repair the line"
            )
        else:
            yield line, {name: cell for name, cell in cells.items() if name in wanted}


def _read_csv(data: bytes, wanted: set[str], complain: Complain) -> Iterator[tuple[int, Cells]]:
    """Read comma-separated values with a header, quoted as RFC 4180 says; blank lines are skipped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        complain(
            data.count(b"\n", 0, error.start) + 1,
            f"not UTF-8 ({error.reason} at byte {error.start}); save the table as UTF-8",
        )
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    limit = csv.field_size_limit(sys.maxsize)  # a vector may be longer than the default of 131072 characters
    try:
        for row in reader:
            if header is None and row:
                header = [name.strip() for name in row]
                for name in (name for name, count in Counter(header).items() if count > 1 and name in wanted):
                    complain(line, f"two columns are called {name!r}; rename one")
            elif row and header is not None and len(row) != len(header):
                complain(
                    line, f"expected {len(header)} cells as in the header, got {len(row)}; quote cells that hold commas"
                )
            elif row and header is not None:
                yield line, {name: cell for name, cell in zip(header, row, strict=True) if name in wanted}
            line = reader.line_num + 1
    except csv.Error as error:
        complain(line, f"not readable as CSV ({error}); check the quotes")
    finally:
        csv.field_size_limit(limit)


def _read_parquet(data: bytes, wanted: set[str], complain: Complain) -> Iterator[tuple[int, Cells]]:
    """Read the wanted columns of a Parquet file. Raises: ConfigError when pyarrow is not installed."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            "a .parquet table needs pyarrow, which is not installed; pip install pyarrow, or save as .jsonl"
        ) from error
    try:
        table = parquet.ParquetFile(io.BytesIO(data)).read()
        rows = table.select([index for index, name in enumerate(table.column_names) if name in wanted]).to_pylist()
    except (arrow.ArrowException, OSError, ValueError) as error:
        complain(0, f"not readable as Parquet ({error}); write it anew")
    else:
        yield from enumerate(rows, start=1)


READERS: Mapping[str, Callable[[bytes, set[str], Complain], Iterator[tuple[int, Cells]]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


# ---- cells


def _missing(cell: object) -> bool:
    """Say whether a cell counts as empty: null, blank text, an empty list."""
    return cell is None or (not cell.strip() if isinstance(cell, str) else isinstance(cell, list) and not cell)


def _lookup(cells: object, path: str) -> object:
    """Return the cell of that name, or else the one at that dotted path; None where there is none."""
    if not isinstance(cells, Mapping) or path in cells:
        return cells[path] if isinstance(cells, Mapping) else None
    head, _, rest = path.partition(".")
    return _lookup(cells.get(head), rest) if rest else None


def _name(cell: object) -> str:
    """Return a label, id or group as text. Raises: _Unusable unless it is text or a whole number."""
    if isinstance(cell, bool) or not isinstance(cell, str | int):
        raise _Unusable(f"expected text or a whole number, got {_short(cell)}")
    return str(cell).strip()


def _text(cell: object, _folder: Path) -> str:
    if not isinstance(cell, str):
        raise _Unusable(f"expected text, got {_short(cell)}; put it in quotes")
    return cell


def _file(cell: object, folder: Path) -> Path:
    """Return the absolute path of a file inside the folder (links are followed). Raises: _Unusable."""
    if not isinstance(cell, str):
        raise _Unusable(f"expected the path of a file inside the folder, got {_short(cell)}")
    if ".." in PureWindowsPath(cell).parts or PurePosixPath(cell).is_absolute() or PureWindowsPath(cell).is_absolute():
        raise _Unusable(
            f"the path {_short(cell)} leaves the folder; expected one inside it, without '..'; copy the file there"
        )
    path = folder / cell
    if not _is_file(path):
        raise _Unusable(f"no file {_short(cell)} in the folder; put it there, or leave the cell empty")
    return path


def _is_file(path: Path) -> bool:
    """Say whether the file is there; a name that no file can have (too long, say) is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _vector(cell: object, _folder: Path) -> tuple[float, ...]:
    """Return numbers from a list, or from text: a JSON list, or parted by blanks or semicolons. Raises: _Unusable."""
    try:
        numbers = _split_numbers(cell) if isinstance(cell, str) else cell
        if not isinstance(numbers, list) or not all(
            isinstance(x, float | int) and not isinstance(x, bool) for x in numbers
        ):
            raise ValueError
        vector = tuple(map(float, numbers))
    except (ValueError, OverflowError, RecursionError):
        raise _Unusable(
            f"expected a list of numbers, got {_short(cell)}; correct it, or leave the cell empty"
        ) from None
    if not all(map(math.isfinite, vector)):
        raise _Unusable("expected finite numbers, got NaN or infinity; correct them, or leave the cell empty")
    return vector


def _split_numbers(text: str) -> object:
    return (
        json.loads(text) if text.lstrip().startswith("[") else [float(part) for part in text.replace(";", " ").split()]
    )


KINDS: Mapping[str, Callable[[object, Path], Value]] = {
    "image": _file,
    "audio": _file,
    "text": _text,
    "vector": _vector,
}


# ---- rows


def _check_labels(records: Sequence[_Record], faults: _Faults) -> tuple[str, ...]:
    """Return the classes of train; note labels that are missing or that train does not have."""
    labels: dict[str, list[tuple[_Record, str]]] = defaultdict(list)
    for record in records:
        try:
            if _missing(record.cells.get("label")):
                raise _Unusable("missing; fill it or remove the row")
            labels[record.split].append((record, _name(record.cells["label"])))
        except _Unusable as unusable:
            faults.add(record.table, record.line, f"label: {unusable}")
    classes = _sorted_classes({label for _, label in labels["train"]})
    for record, label in chain(labels["val"], labels["test"]):
        if classes and label not in classes:
            message = (
                f"label: {_short(label)} is not in train, which has {_listed(classes)}; correct it or add rows there"
            )
            faults.add(record.table, record.line, message)
    _check_classes(records, classes, faults)
    return classes


def _check_classes(records: Sequence[_Record], classes: Sequence[str], faults: _Faults) -> None:
    """Note a train split that is not there or that has one class only."""
    if records and len(faults.tables) == 1 and not any(record.split == "train" for record in records):
        faults.add(
            records[0].table, 0, "no train split; expected rows with split 'train', or a table of that name; add them"
        )
    if len(classes) == 1:
        table = next(record.table for record in records if record.split == "train")
        faults.add(
            table, 0, f"train has one class only, {_short(classes[0])}; expected two at least; add rows of another"
        )


def _sorted_classes(labels: set[str]) -> tuple[str, ...]:
    """Sort labels, as numbers where all are integers ("2" before "10")."""
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _read_values(
    records: Sequence[_Record], kinds: Mapping[str, str], folder: Path, faults: _Faults
) -> list[dict[str, Value]]:
    """Read the modalities of every row; note unusable values, rows without any, vectors of odd length."""
    values = []
    for record in records:
        row, failed = _row_values(record, kinds, folder, faults)
        if not row and not failed:
            faults.add(
                record.table,
                record.line,
                f"no modality at all; fill at least one of {_listed(kinds)}, or remove the row",
            )
        values.append(row)
    _check_lengths(records, values, faults)
    return values


def _row_values(
    record: _Record, kinds: Mapping[str, str], folder: Path, faults: _Faults
) -> tuple[dict[str, Value], bool]:
    """Return the modalities of one row, and whether any failed."""
    row: dict[str, Value] = {}
    failed = False
    for name, kind in kinds.items():
        cell = record.cells.get(name)
        if _missing(cell):
            continue
        try:
            value = KINDS[kind](cell, folder)
        except _Unusable as unusable:
            faults.add(record.table, record.line, f"{name}: {unusable}")
            failed = True
        else:
            if value != ():
                row[name] = value
    return row, failed


def _check_lengths(records: Sequence[_Record], values: Sequence[Mapping[str, Value]], faults: _Faults) -> None:
    """Note vectors that are not as long as most of their modality."""
    rows = [{name: len(value) for name, value in row.items() if isinstance(value, tuple)} for row in values]
    lengths: dict[str, Counter[int]] = defaultdict(Counter)
    for name, length in chain.from_iterable(row.items() for row in rows):
        lengths[name][length] += 1
    usual = {name: counts.most_common(1)[0][0] for name, counts in lengths.items()}
    for record, row in zip(records, rows, strict=True):
        for name, length in row.items():
            if length != usual[name]:
                faults.add(
                    record.table,
                    record.line,
                    f"{name}: expected {usual[name]} numbers as in most rows, got {length}; correct it",
                )


def _build_rows(
    records: Sequence[_Record],
    values: Sequence[Mapping[str, Value]],
    modalities: Mapping[str, str],
    options: _Options,
    faults: _Faults,
) -> list[Row]:
    """Put the rows together; note ids given twice, and `present` or groups that cannot be used."""
    rows = []
    first: dict[tuple[str, str], int] = {}
    for record, row in zip(records, values, strict=True):
        try:
            name = _row_id(record)
            line = first.setdefault((record.split, name), record.line)
            if line != record.line:
                raise _Unusable(
                    f"id: {_short(name)} was given before in split {record.split}, at {line}; make it unique"
                )
            present = _parse_present(record.cells.get("present"), options.kinds, row)
            groups = _row_groups(
                record.cells, {name: options.groups[name] for name in modalities if name in options.groups}
            )
        except _Unusable as unusable:
            faults.add(record.table, record.line, str(unusable))
        else:
            cell = record.cells.get("label")
            rows.append(Row(name, "" if cell is None else str(cell).strip(), row, present, groups))
    return rows if len(rows) == len(records) else []


def _row_id(record: _Record) -> str:
    cell = record.cells.get("id")
    try:
        return f"{record.split}-{record.number}" if _missing(cell) else _name(cell)
    except _Unusable as unusable:
        raise _Unusable(f"id: {unusable}") from None


def _row_groups(cells: Cells, columns: Mapping[str, str]) -> dict[str, str]:
    """Return modality -> group of one row, without those that are empty."""
    found = {name: _lookup(cells, column) for name, column in columns.items()}
    try:
        return {name: _name(cell) for name, cell in found.items() if not _missing(cell)}
    except _Unusable as unusable:
        raise _Unusable(f"group: {unusable}") from None


def _parse_present(cell: object, kinds: Mapping[str, str], row: Mapping[str, Value]) -> dict[str, frozenset[str]]:
    """Read missing rate -> modalities left, from an object or JSON text; modalities that the row lacks are left out."""
    if _missing(cell):
        return {}
    given = _present_object(cell)
    masks = {}
    for rate, names in given.items():
        if names is None:  # Parquet gives every row every key of a struct
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) and name in kinds for name in names):
            raise _Unusable(
                f"present: {rate}: expected a list out of {_listed(kinds)}, got {_short(names)}; correct it"
            )
        masks[rate] = frozenset(name for name in names if name in row)
        if row and not masks[rate]:
            raise _Unusable(f"present: {rate}: leaves nothing of this row; name at least one of {_listed(row)}")
    return masks


def _present_object(cell: object) -> dict[str, object]:
    """Return the mapping of a `present` cell: an object, JSON text, or the pairs of a Parquet map."""
    try:
        given = json.loads(cell) if isinstance(cell, str) else cell
        if isinstance(given, list):
            given = dict(given)
    except (ValueError, TypeError, RecursionError):
        given = None
    if not isinstance(given, dict) or not all(isinstance(rate, str) for rate in given):
        raise _Unusable(
            f'present: expected {{"20": ["image", ...], ...}}, got {_short(cell)}; correct it or leave it empty'
        )
    return given


# ---- validation split


def split_validation(rows: Sequence[Row], fraction: float, seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...], str]:
    """Hold out a part of the training rows, by class, and where possible without sharing a group.

    Rows that share any (modality, group) are one component and stay together. Where one component holds over half of
    the rows, or no choice of components comes near the fraction, the groups of one modality at a time are tried, in
    order; then no groups at all.

    Args: rows; fraction of them to hold out, between 0 and 1; seed, the same gives the same split.
    Returns: train, val (both in the order given; every class remains in train), and a note that says what was done.
    Raises: ConfigError for a fraction out of range; DataError when no class has a second row.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"got a validation fraction of {fraction}, expected one between 0 and 1; 0.2 is usual")
    generator = random.Random(seed)
    labels = [row.label for row in rows]
    targets = _targets(Counter(labels), fraction, generator)
    grouped = list(dict.fromkeys(name for row in rows for name in row.groups))
    held, how = _hold_out_groups(rows, labels, targets, grouped, generator)
    if not held:
        held = _hold_out([[index] for index in range(len(rows))], labels, targets, generator)
    train = tuple(row for index, row in enumerate(rows) if index not in held)
    val = tuple(row for index, row in enumerate(rows) if index in held)
    return train, val, f"validation: {len(val)} of {len(rows)} rows held out by class; {how}"


def _targets(totals: Counter[str], fraction: float, generator: random.Random) -> dict[str, int]:
    """Return how many rows of each class to hold out, rounded to the right sum; one row of each at least is left."""
    exact = {label: fraction * count for label, count in sorted(totals.items())}
    targets = {label: math.floor(share) for label, share in exact.items()}
    wanted = max(1, round(sum(exact.values())))
    order = sorted(generator.sample(list(exact), len(exact)), key=lambda label: targets[label] - exact[label])
    for label in [label for label in order if targets[label] + 1 < totals[label]][: wanted - sum(targets.values())]:
        targets[label] += 1
    if not any(targets.values()):
        raise DataError(
            f"got {totals.total()} training rows, no two of a class; expected that; add rows or a val table"
        )
    return targets


def _hold_out_groups(
    rows: Sequence[Row],
    labels: Sequence[str],
    targets: Mapping[str, int],
    grouped: Sequence[str],
    generator: random.Random,
) -> tuple[set[int], str]:
    """Try all groups together, then one modality at a time; return the rows held out (none: no way) and a note."""
    failed: list[str] = []
    for names in [list(grouped), *([name] for name in grouped if len(grouped) > 1)] if grouped else []:
        parts = _components(rows, names)
        largest, wanted = max(map(len, parts)), sum(targets.values())
        held = set() if 2 * largest > len(rows) else _hold_out(parts, labels, targets, generator)
        if wanted / 2 <= len(held) <= 2 * wanted:
            rest = f" (not possible for {'; '.join(failed)})" if failed else ""
            return held, f"no group of {' or '.join(names)} is on both sides{rest}"
        failed.append(f"{' with '.join(names)}, {len(parts)} separate parts, the largest of {largest} rows")
    shared = f"groups are on both sides (keeping them apart is not possible for {'; '.join(failed)})"
    return set(), shared if failed else "the rows have no groups"


def _components(rows: Sequence[Row], names: Sequence[str]) -> list[list[int]]:
    """Return the row numbers of each component: rows connected through a shared group of a named modality."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, row in enumerate(rows):
        for name in row.groups.keys() & set(names):
            parent[root(index)] = root(first.setdefault((name, row.groups[name]), index))
    parts: dict[int, list[int]] = defaultdict(list)
    for index in range(len(rows)):
        parts[root(index)].append(index)
    return list(parts.values())


def _hold_out(
    parts: Sequence[Sequence[int]],
    labels: Sequence[str],
    targets: Mapping[str, int],
    generator: random.Random,
    tries: int = 10,
) -> set[int]:
    """Choose whole parts whose rows come near the targets: the best of a few random orders.

    A part helps when it makes the sum over classes of (rows held - target)^2 smaller and leaves a row of each class.
    Parts of one row reach the targets exactly.
    """
    totals = Counter(labels)
    counted = [(part, Counter(labels[index] for index in part)) for part in parts]
    best: tuple[int, set[int]] = (sum(target**2 for target in targets.values()), set())
    for _ in range(tries if len(parts) < len(labels) else 1):
        held: Counter[str] = Counter()
        chosen: set[int] = set()
        for part, counts in generator.sample(counted, len(counted)):
            gain = sum(count * (2 * (targets[label] - held[label]) - count) for label, count in counts.items())
            if gain > 0 and all(held[label] + count < totals[label] for label, count in counts.items()):
                held.update(counts)
                chosen.update(part)
        missed = sum((held[label] - target) ** 2 for label, target in targets.items())
        best = min(best, (missed, chosen), key=lambda outcome: outcome[0])
    return best[1]
