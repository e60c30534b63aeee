"""Cross-validation folds that share no group, where the data allow it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mla_serve.fusion.formula import Array
from mla_serve.table import Row
from mla_serve.tasks import Task

FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Folds:
    """number (N,): the fold of each row; note: says which groups were kept together."""

    number: Array
    note: str


def make_folds(rows: Sequence[Row], seed: int, task: Task, count: int = FOLDS) -> Folds:
    """Split rows into folds of similar size, so that rows that share a group are in the same fold.

    See `parts_by_group` for which groups are kept together. If no way works, folds are random, with the same share of each
    label, as far as it can be divided.
    """
    generator = np.random.default_rng(seed)
    count = max(2, min(count, len(rows)))
    part, names = parts_by_group(rows, count)
    if names:
        number = _assign_folds(part, np.bincount(part), count, generator)
        return Folds(number, f"cross-validation: no {' or '.join(names)} group in two folds")
    number = _deal_out(task.strata([row.label for row in rows]), count, generator)
    grouped = any(row.groups for row in rows)
    why = "every way to keep its groups apart leaves too few parts" if grouped else "the rows have no groups"
    return Folds(number, f"cross-validation: folds at random, {why}")


def folds_apart(rows: Sequence[Row], most: int) -> int:
    """Return how many folds can be made that share no group: `most` at most; 0 where groups cannot be kept apart."""
    if not any(row.groups for row in rows):
        return most
    part, names = parts_by_group(rows, 2)
    return min(most, int(part.max()) + 1) if names else 0


def parts_by_group(rows: Sequence[Row], count: int) -> tuple[Array, list[str]]:
    """Number the parts (N,) of rows that share no group, `count` parts at least and none with more than half of the rows.

    First the groups of all modalities are kept together, then those of one modality at a time, in order.
    Returns: the parts, and the modalities whose groups they keep together; each row by itself, and none, if no way works.
    """
    grouped = list(dict.fromkeys(name for row in rows for name in row.groups))
    for names in [grouped, *([name] for name in grouped if len(grouped) > 1)] if grouped else []:
        part = _parts(rows, names)
        sizes = np.bincount(part)
        if len(sizes) >= count and 2 * sizes.max() <= len(rows):
            return part, names
    return np.arange(len(rows)), []


def shared_groups(train: Sequence[Row], val: Sequence[Row]) -> dict[str, float]:
    """Return, by modality, the fraction of validation values whose group occurs in training too."""
    known: defaultdict[str, set[str]] = defaultdict(set)
    for row in train:
        for name, group in row.groups.items():
            known[name].add(group)
    shared: defaultdict[str, list[bool]] = defaultdict(list)
    for row in val:
        for name, group in row.groups.items():
            if name in row.values:
                shared[name].append(group in known[name])
    return {name: float(np.mean(found)) for name, found in shared.items()}


def _parts(rows: Sequence[Row], names: Sequence[str]) -> Array:
    """Number the connected components of rows that share a group of a named modality: (N,)."""
    label = np.arange(len(rows))
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        for name in names:
            if name in row.groups:
                members[name, row.groups[name]].append(index)
    changed = True
    while changed:
        before = label.copy()
        for together in members.values():
            label[together] = label[together].min()
        changed = bool((before != label).any())
    return np.unique(label, return_inverse=True)[1]


def _deal_out(strata: Sequence[tuple[str, ...]], count: int, generator: np.random.Generator) -> Array:
    """Put the rows of each stratum into one fold after the other, in random order: (N,). Args: strata, see Task.strata."""
    order = generator.permutation(len(strata))
    first = np.unique([names[0] for names in strata], return_inverse=True)[1]
    fold = np.zeros(len(strata), dtype=int)
    fold[order[np.argsort(first[order], kind="stable")]] = np.arange(len(strata)) % count
    return fold


def _assign_folds(part: Array, sizes: Array, count: int, generator: np.random.Generator) -> Array:
    """Put each part into the fold that is smallest so far, the largest part first: (N,)."""
    order = np.lexsort([generator.random(len(sizes)), -sizes])
    fold, filled = np.zeros(len(sizes), dtype=int), np.zeros(count, dtype=int)
    for one in order:
        fold[one] = filled.argmin()
        filled[fold[one]] += sizes[one]
    return fold[part]
