"""The faults of a data set: collected with their places, reported all at once, or left out if that is asked for."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_serve.errors import DataError

MOST_SHOWN = 20
EXAMPLES = 3  # places in a note
LIST_COLUMNS = ("file", "line", "column", "fault")

WITHOUT_LINES = (".parquet", ".arrow", ".feather", ".json", ".json.gz", ".xlsx", ".xlsm", "/")
"""Ends of the names of tables whose rows are numbered instead of their lines; / is a folder of files."""

Place = tuple[str, int]
"""File name and line, or row, from 1; 0 means the whole file."""


class InvalidValue(ValueError):
    """A value that cannot be used; the message says what was given, what was expected and what to do."""


class BrokenTable(InvalidValue):
    """A fault after which no further row of the table can be read."""


@dataclass(frozen=True)
class FaultPolicy:
    """What to do with faults.

    skip_bad: leave out the rows with faults. skip_bad_values: leave out only the value at fault, and keep the rest of its
    row. Without either, any fault is an error. show: number of faults in the message. faults_file: CSV file for the whole
    list; another file of that name is never replaced. advise: whether the message names the flags that leave faults out.
    """

    skip_bad: bool = False
    skip_bad_values: bool = False
    show: int = MOST_SHOWN
    faults_file: Path | None = None
    advise: bool = True


@dataclass(frozen=True)
class Fault:
    """One fault: the message says what stands there, what was expected and what to do.

    column: "" where a whole row or file is at fault. modality: where only this value of the row is at fault. also: further
    rows with the same fault.
    """

    place: Place
    column: str
    message: str
    modality: str | None = None
    also: tuple[Place, ...] = ()
    broken: bool = False
    """No further row of the table can be read, so that nothing can be left out instead."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Return all rows with this fault."""
        return (self.place, *self.also)

    def __str__(self) -> str:
        """Format as train.csv:3: image: no file ..."""
        return ": ".join(filter(None, [format_place(self.place), escape(self.column), self.message]))


class Faults:
    """Collects faults. `raise_if_any` reports those that the policy does not leave out, in the order of the files."""

    def __init__(self, folder: Path = Path(), files: Sequence[str] = (), policy: FaultPolicy = FaultPolicy()) -> None:
        self.folder = folder
        self.files = files
        self.policy = policy
        self.found: list[Fault] = []
        self.columns: Mapping[str, str] = {}
        """Modality -> its column in the table, where it has another name."""

    def add(self, place: Place, message: str, column: str = "", *, also: Sequence[Place] = ()) -> None:
        """Add a fault of a row, or of a file (line 0). Args: also, further rows with the same fault."""
        self.found.append(Fault(place, column, message, also=tuple(also)))

    def add_broken(self, place: Place, message: str) -> None:
        """Add a fault after which no further row of the table can be read."""
        self.found.append(Fault(place, "", message, broken=True))

    def add_value(self, place: Place, modality: str, message: str, column: str | None = None) -> None:
        """Add a fault of one value. Args: column, of the value. Default: that of the modality."""
        self.found.append(Fault(place, column or self.columns.get(modality, modality), message, modality))

    @contextmanager
    def collecting(self, place: Place, field: str, modality: str | None = None) -> Iterator[None]:
        """Add an InvalidValue that is raised in the block as a fault, and continue after the block.

        Args: field, the column; modality, where only the value of this modality is at fault then.
        """
        try:
            yield
        except InvalidValue as error:
            self.found.append(Fault(place, field, str(error), modality))

    def raise_if_any(self) -> None:
        """Raise DataError if there is any fault that the policy does not leave out. Write the list of all faults."""
        if refused := [fault for fault in self._sorted() if not self._skips(fault)]:
            raise DataError(self._refusal(refused, self.write_list()))

    @property
    def refuses(self) -> bool:
        """Whether there is a fault that the policy does not leave out."""
        return not all(map(self._skips, self.found))

    def left_out(self) -> frozenset[Place]:
        """Return the rows to leave out. Values that are left out may leave nothing of further rows."""
        rows = [fault for fault in self.found if self._skips(fault) and not self._skips_value(fault)]
        return frozenset(place for fault in rows for place in fault.places)

    def left_out_values(self) -> dict[Place, frozenset[str]]:
        """Return the modalities to leave out: {place: modalities}."""
        values: dict[Place, frozenset[str]] = {}
        for fault in self.found:
            if fault.modality is not None and self._skips_value(fault):
                values[fault.place] = values.get(fault.place, frozenset()) | {fault.modality}
        return values

    def describe_left_out(self, kept: Collection[Place]) -> list[str]:
        """Describe the rows and values that were left out, and write the list of all faults.

        Args: kept, the rows that are left.
        """
        kept = frozenset(kept)
        bad = {place for fault in self.found for place in fault.places} - kept
        rows = [fault for fault in self._sorted() if not kept.issuperset(fault.places)]
        values = [fault for fault in self._sorted() if kept.issuperset(fault.places)]
        notes = []
        if bad:
            notes.append(f"{len(bad)} of {len(bad) + len(kept)} rows left out because of faults{_examples(rows)}")
        if values:
            what = "1 value" if len(values) == 1 else f"{len(values)} values"
            notes.append(f"{what} left out because of faults, the rest of the row is used{_examples(values)}")
        if len(bad) > len(kept):
            notes.append("more than half of the rows are left out: is the table read as it is meant?")
        return notes + ([self.write_list()] if notes and self.policy.faults_file else [])

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return all faults as plain types for JSON."""
        return [dataclasses.asdict(fault) for fault in self._sorted()]

    def restore(self, faults: Iterable[Mapping[str, Any]]) -> list[Fault]:
        """Add the faults that `to_dicts` returned when the table was read before.

        Returns: those found now that were not found then.
        """
        before = [_restore(fields) for fields in faults]
        new = _without(self.found, before)
        self.found += _without(before, self.found)
        return new

    def write_list(self) -> str:
        """Write all faults to the file of the policy, one line for each row, and return a sentence that says where."""
        path = self.policy.faults_file
        if path is None or not self.found:
            return ""
        rows = [(*place, fault.column, fault.message) for fault in self._sorted() for place in fault.places]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path = _free_path(path)
            with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                csv.writer(file).writerows([LIST_COLUMNS, *rows])
        except OSError as error:
            return f"the whole list could not be written to {path} ({error.strerror})"
        return f"the whole list: {path}"

    def _skips(self, fault: Fault) -> bool:
        """Return whether the policy leaves the fault out. What concerns a whole file cannot be left out."""
        rows = fault.place[1] > 0 and not fault.broken
        return rows and (self.policy.skip_bad or self._skips_value(fault))

    def _skips_value(self, fault: Fault) -> bool:
        return fault.modality is not None and self.policy.skip_bad_values

    def _sorted(self) -> list[Fault]:
        order = {name: number for number, name in enumerate(self.files)}
        return sorted(self.found, key=lambda fault: (order.get(fault.place[0], len(order)), fault.place[1]))

    def _refusal(self, refused: Sequence[Fault], listed: str) -> str:
        show = self.policy.show
        lines = format_faults(self.folder, [str(fault) for fault in refused], "fault", "in the data set", show)
        counts = [f"by column: {_count_columns(refused)}"] if len(refused) > show else []
        return "\n".join([lines, *counts, *self._advice(refused, listed)])

    def _advice(self, refused: Sequence[Fault], listed: str) -> list[str]:
        """Return where the whole list is, and how to go on without what is at fault."""
        advice = [listed] if listed else []
        if all(fault.place[1] > 0 and not fault.broken for fault in refused):
            ways = f", or add {_ways(refused)}" if self.policy.advise else ""
            advice.append(f"correct {'it' if len(refused) == 1 else 'them'}{ways}")
        return advice


def _without(faults: Sequence[Fault], others: Sequence[Fault]) -> list[Fault]:
    """Return the faults that concern a row or value that no other fault concerns."""
    known = {(place, other.modality) for other in others for place in other.places}
    return [fault for fault in faults if not known.issuperset((place, fault.modality) for place in fault.places)]


def _restore(fields: Mapping[str, Any]) -> Fault:
    also = tuple((file, line) for file, line in fields["also"])
    return Fault(**{**fields, "place": tuple(fields["place"]), "also": also})


def _ways(faults: Sequence[Fault]) -> str:
    """Return the flags that leave faults out."""
    rows = len({place for fault in faults for place in fault.places})
    values = [fault for fault in faults if fault.modality is not None]
    ways = f"--skip-bad to leave out {'this row' if rows == 1 else f'these {rows} rows'}"
    if len(values) == len(faults):
        return f"{ways}, or --skip-bad-values to leave out only {'this value' if len(values) == 1 else 'these values'}"
    good = len({fault.place for fault in values})
    return f"{ways}; --skip-bad-values beside it uses what is good of {good} of them" if values else ways


def _count_columns(faults: Sequence[Fault]) -> str:
    """Count the rows with faults by column, the largest number first."""
    counts: Counter[str] = Counter()
    for fault in faults:
        counts[fault.column or "the whole row"] += len(fault.places)
    return ", ".join(f"{escape(column)} {count}" for column, count in counts.most_common())


def _examples(faults: Sequence[Fault]) -> str:
    """Format the numbers by column and the first places."""
    places = [format_place(place) for fault in faults for place in fault.places]
    return f" ({_count_columns(faults)}): {', '.join(places[:EXAMPLES])}{', ...' if len(places) > EXAMPLES else ''}"


def _free_path(path: Path) -> Path:
    """Return the path, with a number where it is taken by anything else than a list of faults."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists() or _is_list(free))


def _is_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().strip() == ",".join(LIST_COLUMNS).encode()
    except OSError:
        return False


def format_place(place: Place) -> str:
    """Format a place as train.jsonl:3, or train.parquet:row 3 for a format without lines. What cannot be shown is escaped."""
    file, line = place
    unit = "row " if file.lower().endswith(WITHOUT_LINES) else ""
    return escape(f"{file}:{unit}{line}" if line else file)


def escape(text: str) -> str:
    """Write line breaks and other characters that cannot be shown as \\n, \\x1b, ..."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def format_faults(folder: Path, found: Sequence[str], noun: str, rest: str, show: int = MOST_SHOWN) -> str:
    """Format the number of faults and the first of them."""
    count = f"{len(found)} {noun}{'s' if len(found) > 1 else ''} {rest}"
    more = f"; the first {show}" if len(found) > show else ""
    return "\n  ".join([f"{folder}: {count}{more}:", *found[:show]])


def abbreviate(value: object) -> str:
    """Quote a value, and cut a long one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def join_names(names: Collection[str]) -> str:
    """Join the first ten names with commas."""
    return ", ".join([*itertools.islice(names, 10), *(["..."] if len(names) > 10 else [])]) or "none"
