"""Hold out rows for validation and test where the table does not say which."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain

from mla_serve.errors import ConfigError, DataError
from mla_serve.table.dataset import Row
from mla_serve.table.faults import abbreviate
from mla_serve.tasks import Task
from mla_serve.tasks.base import MANY

VALIDATION_FRACTION = 0.2  # of the training rows, where a table has no validation rows
SHARE = 0.15  # of all rows, for validation and for test each, where a table has no splits
FEW = 200  # rows; a test share of fewer measures roughly
EVERY = "\0every"
"""The stratum of all rows, where a row may be of several strata: it keeps the number of rows that are held out."""


def split_rows(
    rows: Sequence[Row], val: float, test: float, seed: int, task: Task
) -> tuple[dict[str, tuple[Row, ...]], str]:
    """Split the rows of a table without splits, stratified by label and, where possible, by group.

    Args: val, test: shares of all rows; with a test share of 0 there is no test split.
    Returns: {split: rows in the order given}; a note on how it was done.
    Raises: ConfigError for shares out of range; DataError when no class has a second row.
    """
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError(
            f"--val-share {val} --test-share {test}: expected shares above 0 that leave rows for training"
        )
    rest, tested, how = _hold_out_share(rows, test, seed, task) if test else (tuple(rows), (), "")
    train, validation, how_val = _hold_out_share(rest, val / (1 - test), seed + 1, task)
    splits = {"train": train, "val": validation, "test": tested}
    found = {split: kept for split, kept in splits.items() if kept}
    counts = ", ".join(f"{len(kept):,} for {split}" for split, kept in found.items())
    note = f"{len(rows):,} rows split by {task.stratified_by}: {counts}"
    few = f"; {len(tested)} rows measure roughly, --folds 5 uses all rows" if test and len(rows) < FEW else ""
    return found, f"{note}; {how or how_val}{few}"


def split_validation(
    rows: Sequence[Row], fraction: float, seed: int, task: Task
) -> tuple[tuple[Row, ...], tuple[Row, ...], str]:
    """Hold out a part of the training rows, stratified by label and, where possible, by group.

    Rows that share a group of any modality form one component and stay together. If one component holds more than half of
    the rows, or no choice of components comes near the fraction, the groups of one modality at a time are tried, in
    order. If none works, groups are ignored.

    Args: fraction of the rows to hold out, between 0 and 1; seed, the same seed gives the same split.
    Returns: train, val (both in the order given; every class remains in train), and a note on how it was done.
    Raises: ConfigError for a fraction out of range; DataError when no class has a second row.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"got a validation fraction of {fraction}, expected one between 0 and 1; 0.2 is usual")
    train, val, how = _hold_out_share(rows, fraction, seed, task)
    return train, val, f"validation: {len(val)} of {len(rows)} rows held out by {task.stratified_by}; {how}"


def _hold_out_share(
    rows: Sequence[Row], fraction: float, seed: int, task: Task
) -> tuple[tuple[Row, ...], tuple[Row, ...], str]:
    """Return the rows that stay, those held out, and a note on the groups."""
    generator = random.Random(seed)
    strata = task.strata([row.label for row in rows])
    strata = strata if all(len(names) == 1 for names in strata) else [(*names, EVERY) for names in strata]
    targets = _targets(Counter(chain.from_iterable(strata)), fraction, generator)
    grouped = list(dict.fromkeys(name for row in rows for name in row.groups))
    held, how = _hold_out_groups(rows, strata, targets, grouped, generator)
    if not held:
        held = _hold_out([[index] for index in range(len(rows))], strata, targets, generator)
    train = tuple(row for index, row in enumerate(rows) if index not in held)
    val = tuple(row for index, row in enumerate(rows) if index in held)
    return train, val, how


def _targets(totals: Counter[str], fraction: float, generator: random.Random) -> dict[str, int]:
    """Return how many rows of each stratum to hold out. The sum is as asked, and at least one row of each is left."""
    exact = {label: fraction * count for label, count in sorted(totals.items())}
    targets = {label: math.floor(share) for label, share in exact.items()}
    wanted = max(1, round(sum(exact.values())))
    order = sorted(generator.sample(list(exact), len(exact)), key=lambda label: targets[label] - exact[label])
    for label in [label for label in order if targets[label] + 1 < totals[label]][: wanted - sum(targets.values())]:
        targets[label] += 1
    if not any(targets.values()):
        each = f"each of the {totals.total()} training rows has a label of its own, such as {abbreviate(min(totals))}"
        number = "; or is the column of the labels an id or a number?" if totals.total() >= MANY else ""
        raise DataError(
            f"{each}, so none can be held out for validation; add rows of the same classes, or a val table{number}"
        )
    return targets


def _hold_out_groups(
    rows: Sequence[Row],
    strata: Sequence[Sequence[str]],
    targets: Mapping[str, int],
    grouped: Sequence[str],
    generator: random.Random,
) -> tuple[set[int], str]:
    """Try all groups together, then one modality at a time. Returns: the rows held out, empty if none works; a note."""
    failed: list[str] = []
    for names in [list(grouped), *([name] for name in grouped if len(grouped) > 1)] if grouped else []:
        parts = _components(rows, names)
        largest, wanted = max(map(len, parts)), targets.get(EVERY, sum(targets.values()))
        held = set() if 2 * largest > len(rows) else _hold_out(parts, strata, targets, generator)
        if wanted / 2 <= len(held) <= 2 * wanted:
            rest = f" (not possible for {'; '.join(failed)})" if failed else ""
            told = "" if names == list(grouped) else f" of {' or '.join(names)}"
            return held, f"rows of one group{told} are on one side{rest}"
        failed.append(f"{' with '.join(names)}, {len(parts)} separate parts, the largest of {largest} rows")
    shared = f"groups are on both sides (keeping them apart is not possible for {'; '.join(failed)})"
    return set(), shared if failed else "the rows have no groups"


def _components(rows: Sequence[Row], names: Sequence[str]) -> list[list[int]]:
    """Return the row numbers of each connected component of rows that share a group of a named modality."""
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
    strata: Sequence[Sequence[str]],
    targets: Mapping[str, int],
    generator: random.Random,
    tries: int = 10,
) -> set[int]:
    """Choose whole parts whose rows come near the targets: the best of a few random orders.

    A part helps when it makes the sum over strata of (rows held - target)^2 smaller and leaves a row of each. Parts of one row
    that is of one stratum reach the targets exactly.
    """
    totals = Counter(chain.from_iterable(strata))
    counted = [(part, Counter(name for index in part for name in strata[index])) for part in parts]
    exact = len(parts) == len(strata) == totals.total()
    best: tuple[int, set[int]] = (sum(target**2 for target in targets.values()), set())
    for _ in range(1 if exact else tries):
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
