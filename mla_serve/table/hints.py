"""Hints on a table, for the user to judge: columns that give the label away, and values that rows share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from mla_serve.table.dataset import Row
from mla_serve.tasks import Label

REPEATED = 5  # rows per value of a column that is judged
MOST_MISSING = 0.5  # of its cells
SHARED = 0.5  # of the rows at most, for a value that groups them
NOUNS = {"image": "a picture", "audio": "a recording", "text": "a text"}


def find_leaks(splits: Mapping[str, Sequence[Row]], modalities: Mapping[str, str]) -> list[str]:
    """Return a note on each column of which every value goes with one label only, in many rows."""
    return list(_leaks(list(chain.from_iterable(splits.values())), modalities))


def find_shared_values(splits: Mapping[str, Sequence[Row]], modalities: Mapping[str, str]) -> list[str]:
    """Return a note on each modality of files or texts whose values several rows share."""
    return list(_shared_values(list(chain.from_iterable(splits.values())), modalities))


def _leaks(rows: Sequence[Row], modalities: Mapping[str, str]) -> Iterator[str]:
    for modality in [name for name, kind in modalities.items() if kind == "columns"]:
        pairs: defaultdict[str, list[tuple[object, Label]]] = defaultdict(list)
        for row in rows:
            cells = row.values.get(modality, {})
            for name, cell in cells.items() if isinstance(cells, Mapping) else ():
                pairs[name].append((cell, _hashable(row.label)))
        for name, found in pairs.items():
            values = {value for value, _ in found}
            many = len(found) >= REPEATED * len(values) and len(found) > MOST_MISSING * len(rows)
            if many and len(values) > 1 and len(set(found)) == len(values):
                yield (
                    f"data: {name}: each of its {len(values)} values goes with one label only; is it the label under another "
                    f"name? Then leave it out with --kinds {name}=ignore"
                )


def _hashable(label: Label) -> Label:
    return frozenset(label.items()) if isinstance(label, Mapping) else label


def _shared_values(rows: Sequence[Row], modalities: Mapping[str, str]) -> Iterator[str]:
    for modality, kind in modalities.items():
        counts = Counter(row.values[modality] for row in rows if modality in row.values and kind in NOUNS)
        sharing = sum(count for count in counts.values() if count > 1)
        if 0 < sharing <= SHARED * len(rows):
            yield (
                f"{modality}: {sharing:,} rows share {NOUNS[kind]} with another row; --group COLUMN, with the column that they "
                "have in common, keeps such rows on one side of the split"
            )
