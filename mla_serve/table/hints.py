"""Hints on a table, for the user to judge: columns that give the label away, and values that rows share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from mla_serve.table.dataset import Row
from mla_serve.tasks import Label, Labels, Task
from mla_serve.tasks.base import MANY

REPEATED = 5  # rows per value of a column that is judged
FOLLOWS = 0.9999  # correlation of a column of numbers with the label
MOST_MISSING = 0.5  # of its cells
SHARED = 0.5  # of the rows at most, for a value that groups them
NOUNS = {"image": "a picture", "audio": "a recording", "text": "a text"}


Pairs = Sequence[tuple[object, Label]]
"""The cells of a column that are not missing, each with the label of its row."""


def find_leaks(splits: Mapping[str, Sequence[Row]], modalities: Mapping[str, str], task: Task) -> list[str]:
    """Return a note on each column that gives the label away, in many rows."""
    rows = list(chain.from_iterable(splits.values()))
    return [
        f"data: {name}: {found}; is it the label under another name? Then leave it out with --kinds {name}=ignore"
        for modality in [name for name, kind in modalities.items() if kind == "columns"]
        for name, pairs in _columns(rows, modality).items()
        if len(pairs) > MOST_MISSING * len(rows) and (found := LEAKS[task.name](pairs))
    ]


def _columns(rows: Sequence[Row], modality: str) -> dict[str, list[tuple[object, Label]]]:
    """Return column -> its cells with their labels."""
    pairs: defaultdict[str, list[tuple[object, Label]]] = defaultdict(list)
    for row in rows:
        cells = row.values.get(modality, {})
        for name, cell in cells.items() if isinstance(cells, Mapping) else ():
            pairs[name].append((cell, row.label))
    return pairs


def _goes_with_label(pairs: Pairs) -> str:
    """Say if every value goes with one label only."""
    values = {value for value, _ in pairs}
    repeated = len(values) > 1 and len(pairs) >= REPEATED * len(values)
    return f"each of its {len(values)} values goes with one label only" if repeated and _decides(pairs) else ""


def _goes_with_one_of_labels(pairs: Pairs) -> str:
    """Say if every value tells whether a row has one of the labels."""
    values = {value for value, _ in pairs}
    if not 1 < len(values) <= len(pairs) / REPEATED:
        return ""
    counts = Counter(name for _, label in pairs for name in Labels.names_in(label))
    judged = [name for name, count in counts.items() if REPEATED <= count <= len(pairs) - REPEATED]
    told = [name for name in judged if _decides([(value, name in Labels.names_in(label)) for value, label in pairs])]
    return f"its values tell whether a row has {', '.join(told)}" if told else ""


def _decides(pairs: Pairs) -> bool:
    """Return whether every value goes with one label only."""
    return len(set(pairs)) == len({value for value, _ in pairs})


def _follows_number(pairs: Pairs) -> str:
    """Say if numbers are the label times a factor, or nearly so."""
    numbers = [(float(value), label) for value, label in pairs if isinstance(value, int | float)]
    if len(numbers) < max(MANY, len(pairs)):
        return ""
    values, labels = np.array(numbers).T
    if not values.std() or not labels.std():
        return ""
    correlation = float(np.corrcoef(values, labels)[0, 1])
    return f"it follows the label, with a correlation of {correlation:.5f}" if abs(correlation) > FOLLOWS else ""


LEAKS: Mapping[str, Callable[[Pairs], str]] = {
    "classes": _goes_with_label,
    "labels": _goes_with_one_of_labels,
    "number": _follows_number,
}
"""Task -> says how a column gives its labels away, "" if it does not."""


def find_shared_values(splits: Mapping[str, Sequence[Row]], modalities: Mapping[str, str]) -> list[str]:
    """Return a note on each modality of files or texts whose values several rows share."""
    return list(_shared_values(list(chain.from_iterable(splits.values())), modalities))


def _shared_values(rows: Sequence[Row], modalities: Mapping[str, str]) -> Iterator[str]:
    for modality, kind in modalities.items():
        counts = Counter(row.values[modality] for row in rows if modality in row.values and kind in NOUNS)
        sharing = sum(count for count in counts.values() if count > 1)
        if 0 < sharing <= SHARED * len(rows):
            yield (
                f"{modality}: {sharing:,} rows share {NOUNS[kind]} with another row; --group COLUMN, with the column that they "
                "have in common, keeps such rows on one side of the split"
            )
