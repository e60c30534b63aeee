"""Notes on the rows before training: copies, contradictions, constant modalities, small classes, shared groups.

The notes depend on the data alone, and nothing here changes how a model is fitted. Each kind of finding is one note with
its count and the first places where it occurs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from mla_serve.errors import DataError
from mla_serve.inputs import INPUTS
from mla_serve.table import Row
from mla_serve.table.faults import format_place
from mla_serve.tasks import Task
from mla_serve.train.data.duplicates import number_values
from mla_serve.train.data.fingerprints import Fingerprint, fold_text
from mla_serve.train.data.folds import shared_groups
from mla_serve.train.notes import Finding

SHOWN = 3

Rows = Mapping[str, Sequence[Row]]
Key = tuple[tuple[str, int], ...]
"""Modalities with the numbers of their values: rows that share a key have the same values of these modalities."""


@dataclasses.dataclass(frozen=True)
class NumberedRow:
    """A row and the numbers of its values: modality -> a number that equal and nearly equal values share."""

    split: str
    row: Row
    numbers: Mapping[str, int]

    @property
    def place(self) -> str:
        """Return file and line."""
        return format_place(self.row.place)


def check_data(
    rows: Rows,
    kinds: Mapping[str, str],
    fingerprints: Callable[[Row], Mapping[str, Fingerprint]],
    task: Task,
) -> list[Finding]:
    """Return a note on each kind of thing that may be wrong with the rows.

    Args: rows, by split, train and val at least; kinds, of the modalities that are used; fingerprints(row), those of a
    row's values; task, of the model.
    Raises: DataError where nothing can be learned from the rows.
    """
    _refuse_labels(rows["train"], task)
    printed = [(split, row, fingerprints(row)) for split, listed in rows.items() for row in listed]
    constant = _constant([found for split, _, found in printed if split == "train"], kinds)
    used = {name: kind for name, kind in kinds.items() if name not in constant}
    if not used:
        raise DataError(
            f"every training row has the same {' and the same '.join(kinds)}: nothing can be learned from them; "
            "check how the table was made"
        )
    numbers = {name: number_values([found.get(name) for _, _, found in printed], kind) for name, kind in used.items()}
    numbered = [
        NumberedRow(split, row, {name: int(own[at]) for name, own in numbers.items() if own[at] >= 0})
        for at, (split, row, _) in enumerate(printed)
    ]
    found = (
        _without_places(_note_names(rows, task)),
        _without_places(_note_spelling(task.names)),
        _without_places(_note_constant(constant)),
        _note_copies(numbered, used),
        _note_contradictions(numbered, task),
        _without_places(_note_groups(rows)),
    )
    return [note for note in found if note.text]


def _without_places(note: str) -> Finding:
    return Finding(note, note)


def _refuse_labels(rows: Sequence[Row], task: Task) -> None:
    """Refuse labels from which nothing can be learned. Raises: DataError."""
    if reason := task.find_unlearnable([row.label for row in rows], many=2):
        raise DataError(f"the {len(rows)} training rows that can be used have {reason}")


def _constant(fingerprints: Sequence[Mapping[str, Fingerprint]], kinds: Iterable[str]) -> dict[str, int]:
    """Return the modalities whose values are all the same: {name: number of training rows}."""
    digests = {name: [found[name].digest for found in fingerprints if name in found] for name in kinds}
    return {name: len(own) for name, own in digests.items() if len(own) > 1 and len(set(own)) == 1}


def _note_names(rows: Rows, task: Task) -> str:
    """Note the classes or labels with too few rows to learn or to measure, and labels that every training row has."""
    train, val = (
        Counter(name for row in rows[split] for name in task.names_in(row.label)) for split in ("train", "val")
    )
    few = {
        "without a training row": [name for name in task.names if not train[name]],
        "with one training row": [name for name in task.names if train[name] == 1],
        "without a val row": [name for name in task.names if train[name] and not val[name]],
        "in every training row": [name for name in task.names if train[name] == len(rows["train"])],
    }
    parts = [f"{len(names)} {what} ({_listed(map(repr, names))})" for what, names in few.items() if names]
    if not parts:
        return ""
    number = task.exclusive and 2 * len(few["with one training row"]) > len(task.names)
    looks = "; is the column 'label' a number to be predicted?" if number else ""
    return f"of {task.describe()}, {', '.join(parts)}: they cannot be learned or measured well{looks}"


def _note_spelling(names: Sequence[str]) -> str:
    """Note classes or labels that differ only in spelling."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in names:
        spellings[fold_text(label)].append(label)
    twice = [" and ".join(map(repr, labels)) for labels in spellings.values() if len(labels) > 1]
    if not twice:
        return ""
    rest = "each is learned by itself; spell them alike where they mean the same"
    return f"labels that differ only in case, blanks or Unicode form: {_listed(twice)}; {rest}"


def _note_constant(constant: Mapping[str, int]) -> str:
    parts = [f"{name} is the same in all {count} training rows that have it" for name, count in constant.items()]
    return f"{' and '.join(parts)}: nothing can be learned from it; leave it out with --modalities" if parts else ""


def _note_copies(numbered: Sequence[NumberedRow], kinds: Mapping[str, str]) -> Finding:
    """Note the rows of a split whose values an earlier split has too."""
    by_split: defaultdict[str, list[NumberedRow]] = defaultdict(list)
    for one in numbered:
        by_split[one.split].append(one)
    counts, parts, before, splits = list[str](), list[str](), dict[Key, NumberedRow](), list[str]()
    for split, rows in by_split.items():
        found = [_find_copy(one, before, kinds) for one in rows]
        if copies := [copy for copy in found if copy]:
            where = " or ".join(splits)
            counts.append(f"{len(copies)} of {len(rows)} {split} rows have a copy in {where}")
            parts.append(f"{counts[-1]} ({_listed(copies, '; ')})")
        splits.append(split)
        for one in rows:
            before |= {key: before.get(key, one) for key in _keys(one, kinds)}
    advice = (
        "unless new inputs are copies as well, the measured accuracy is too high; keep copies in one split or group"
    )
    texts = (f"{', '.join(each)}, equal or nearly so: {advice}" if each else "" for each in (parts, counts))
    return Finding(*texts)


def _find_copy(one: NumberedRow, before: Mapping[Key, NumberedRow], kinds: Mapping[str, str]) -> str:
    """Name the earlier row that this one is a copy of, and in which values; empty if there is none."""
    for key in _keys(one, kinds):
        if key in before:
            what = key[0][0] if len(key) == 1 else "all values"
            return f"{one.place} and {before[key].place}: {what}"
    return ""


def _keys(one: NumberedRow, kinds: Mapping[str, str]) -> list[Key]:
    """Return the keys by which a row may be a copy: each picture or recording; without either, all values together."""
    media: list[Key] = [
        ((name, number),) for name, number in one.numbers.items() if INPUTS[kinds[name]].sent_as == "file"
    ]
    return media or ([tuple(one.numbers.items())] if one.numbers else [])


def _note_contradictions(numbered: Sequence[NumberedRow], task: Task) -> Finding:
    """Note the rows with the same values and labels that contradict each other."""
    same: defaultdict[Key, list[NumberedRow]] = defaultdict(list)
    for one in numbered:
        if one.numbers:
            same[tuple(one.numbers.items())].append(one)
    found = [(rows[0], other) for rows in same.values() if (other := _find_contradiction(rows, task))]
    if not found:
        return _without_places("")
    pairs = (f"{a.place} {_label(a.row)} and {b.place} {_label(b.row)}" for a, b in found)
    count = f"in {len(found)} case{'s' if len(found) > 1 else ''}"
    text, advice = f"rows that are equal or nearly so have different labels {count}", "a model gets one right at most"
    return Finding(f"{text} ({_listed(pairs, '; ')}): {advice}", f"{text}: {advice}")


def _find_contradiction(rows: Sequence[NumberedRow], task: Task) -> NumberedRow | None:
    """Return a row whose label contradicts that of the first one."""
    return next((row for row in rows[1:] if task.contradict(rows[0].row.label, row.row.label)), None)


def _label(row: Row) -> str:
    return repr(sorted(row.label) if isinstance(row.label, frozenset) else row.label)


def _note_groups(rows: Rows) -> str:
    """Note the values of val and test whose group train has too."""
    shared = {split: shared_groups(rows["train"], rows[split]) for split in rows if split != "train"}
    parts = [
        f"{share:.0%} of the {name} values of {split}"
        for split, by_name in shared.items()
        for name, share in by_name.items()
        if share > 0
    ]
    if not parts:
        return ""
    return (
        f"{' and '.join(parts)} are of a group that train has too: on new groups, expect lower accuracy than measured"
    )


def _listed(items: Iterable[str], between: str = ", ") -> str:
    """Join the first few items."""
    every = list(items)
    return between.join([*every[:SHOWN], *(["..."] if len(every) > SHOWN else [])])
