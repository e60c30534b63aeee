"""The validation split: every class stays in train, groups stay together where they can."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mla_serve.errors import ConfigError, DataError
from mla_serve.table import Row, Schema, Table, TableOptions, table_from_lines
from mla_serve.table.split import split_validation
from mla_serve.tasks import Classes, Labels, Number


def row(index: int, label: Any, groups: Mapping[str, str] | None = None) -> Row:
    return Row(str(index), label, {"text": "x"}, {}, groups or {})


labelled = st.lists(st.sampled_from("abc"), min_size=2, max_size=60).filter(
    lambda labels: max(Counter(labels).values()) > 1
)


@settings(max_examples=50, deadline=None)
@example(labels=["a", "a", "a", "b", "c"], fraction=1 / 3, seed=0)  # only "a" can give the second row that is asked for
@given(labels=labelled, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_plain_split_keeps_every_class_in_train(labels: list[str], fraction: float, seed: int) -> None:
    rows = [row(index, label) for index, label in enumerate(labels)]
    train, val, note = split_validation(rows, fraction, seed, Classes())
    assert sorted((*train, *val), key=rows.index) == rows
    assert list(train) == sorted(train, key=rows.index)
    assert val
    assert {r.label for r in train} == set(labels)
    assert "no groups" in note
    held = Counter(r.label for r in val)
    for label, count in Counter(labels).items():
        assert held[label] <= math.floor(fraction * count) + 1
    assert split_validation(rows, fraction, seed, Classes()) == (train, val, note)


def test_a_plain_split_has_the_size_asked_for() -> None:
    rows = [row(index, "abcdefghij"[index % 10]) for index in range(20)]
    train, val, _ = split_validation(rows, 0.2, 0, Classes())
    assert (len(train), len(val)) == (16, 4)  # two rows a class: no class alone has a whole row to give
    assert split_validation(rows, 0.2, 1, Classes())[1] != val


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together(seed: int) -> None:
    rows = [row(i, "ab"[i % 2], {"audio": f"s{i % 20}", "image": f"w{i % 40}"}) for i in range(400)]
    train, val, note = split_validation(rows, 0.2, seed, Classes())
    for name in ("audio", "image"):
        assert not {r.groups[name] for r in train} & {r.groups[name] for r in val}
    assert 40 <= len(val) <= 160
    assert "rows of one group are on one side" in note


def test_where_all_groups_together_cannot_be_parted_one_modality_is() -> None:
    rows = [row(i, "ab"[i % 2], {"audio": "one voice", "image": f"w{i // 4}"}) for i in range(100)]
    train, val, note = split_validation(rows, 0.2, 0, Classes())
    assert not {r.groups["image"] for r in train} & {r.groups["image"] for r in val}
    assert len(val) == 20
    assert "rows of one group of image are on one side" in note
    assert "audio, 1 separate parts, the largest of 100 rows" in note


def test_where_no_groups_can_be_parted_the_split_is_plain() -> None:
    rows = [row(i, "ab"[i % 2], {"audio": "ab"[i % 2]}) for i in range(100)]  # a class is a group: none can leave train
    _, val, note = split_validation(rows, 0.2, 0, Classes())
    assert Counter(r.label for r in val) == {"a": 10, "b": 10}
    assert "groups are on both sides" in note


def test_a_split_that_cannot_be_made() -> None:
    rows = [row(0, "a"), row(1, "b")]
    with pytest.raises(DataError, match="each of the 2 training rows has a label of its own, such as 'a'"):
        split_validation(rows, 0.2, 0, Classes())
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            split_validation(rows, fraction, 0, Classes())


def raw_rows(count: int, classes: int) -> list[dict[str, Any]]:
    return [
        {"label": str(number % classes), "text": f"some words {number}", "who": f"w{number // 4}"}
        for number in range(count)
    ]


def build(rows: Sequence[Mapping[str, Any]], **options: Any) -> Table:
    return table_from_lines({"shop.csv": list(enumerate(rows, start=2))}, Path("/x"), "f" * 64, TableOptions(**options))


def ids(table: Table) -> dict[str, set[str]]:
    return {split: {row.id for row in rows} for split, rows in table.splits.items()}


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 120), st.integers(2, 4), st.integers(0, 5))
def test_a_table_without_splits_is_split_by_class_and_again_alike(count: int, classes: int, seed: int) -> None:
    rows = raw_rows(count, classes)
    table = build(rows, seed=seed, kinds={"who": "ignore"})
    found = ids(table)
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == count
    for split in ("val", "test"):
        assert abs(len(found[split]) - 0.15 * count) <= 1.5
        counts = Counter(row.label for row in table.splits[split])
        assert max(counts.values()) - min(counts[str(label)] for label in range(classes)) <= 2
    assert ids(build(rows, seed=seed, kinds={"who": "ignore"})) == found
    # A model reads the table of its training into the same splits, and any other into test rows.
    schema = Schema.from_dict(table.schema.to_dict())
    assert ids(build(rows, schema=schema)) == found
    other = table_from_lines({"new.csv": list(enumerate(rows))}, Path("/x"), "0" * 64, TableOptions(schema=schema))
    assert {split: len(kept) for split, kept in ids(other).items()} == {"test": count}


@settings(max_examples=25, deadline=None)
@given(st.integers(60, 120), st.integers(0, 5))
def test_rows_of_one_group_stay_on_one_side(count: int, seed: int) -> None:
    table = build(raw_rows(count, 3), group="who", seed=seed)
    sides = [{row.groups["text"] for row in rows} for rows in table.splits.values()]
    assert len(sides) == 3
    assert sum(map(len, sides)) == len(set().union(*sides))


def test_shares_are_as_asked() -> None:
    table = build(raw_rows(100, 2), val=0.3, test=0.1, kinds={"who": "ignore"})
    assert {split: len(rows) for split, rows in table.splits.items()} == {"train": 60, "val": 30, "test": 10}
    assert set(build(raw_rows(100, 2), test=0.0).splits) == {"train", "val"}
    for val, test in ((0.0, 0.1), (0.5, 0.5), (0.1, -0.1)):
        with pytest.raises(ConfigError, match="expected shares above 0 that leave rows for training"):
            build(raw_rows(100, 2), val=val, test=test)


def test_rows_that_share_a_text_are_said_and_a_group_is_suggested() -> None:
    rows = [*raw_rows(40, 2), *({"label": "1", "text": "the same words", "who": f"x{n}"} for n in range(5))]
    assert any(note.startswith("text: 5 rows share a text with another row; --group") for note in build(rows).notes)
    assert not any("--group" in note for note in build(rows, group="who").notes)


def test_numbers_are_split_by_their_quantiles() -> None:
    rows = [row(index, float(value)) for index, value in enumerate(np.random.default_rng(0).lognormal(3, 2, 200))]
    train, val, note = split_validation(rows, 0.2, 0, Number())
    assert (len(train), len(val)) == (160, 40)
    edges = np.quantile([one.label for one in rows], np.linspace(0, 1, 11)[1:-1])
    assert np.bincount(np.searchsorted(edges, [one.label for one in val])).tolist() == [4] * 10
    assert "40 of 200 rows held out by value" in note


@pytest.mark.parametrize("seed", range(5))
def test_every_label_is_held_out_in_its_share_and_stays_in_train(seed: int) -> None:
    shares = {"common": 0.6, "usual": 0.3, "seldom": 0.1, "rare": 0.02}
    drawn = np.random.default_rng(seed).random((500, 4)) < list(shares.values())
    rows = [
        row(n, frozenset(name for name, there in zip(shares, one, strict=True) if there)) for n, one in enumerate(drawn)
    ]
    train, val, note = split_validation(rows, 0.2, seed, Labels(tuple(shares)))
    assert 95 <= len(val) <= 105
    assert "held out by label" in note
    for name in shares:
        held, count = (sum(name in one.label for one in some) for some in (val, rows))
        assert held == pytest.approx(0.2 * count, abs=max(3, 0.02 * count))
        assert any(name in one.label for one in train)


def test_labels_and_groups_are_both_kept() -> None:
    names = ("a", "b", "c")
    rows = [row(n, frozenset(names[: n % 4]), {"text": f"g{n // 5}"}) for n in range(300)]
    train, val, note = split_validation(rows, 0.2, 0, Labels(names))
    assert not {one.groups["text"] for one in train} & {one.groups["text"] for one in val}
    assert 40 <= len(val) <= 80
    assert "rows of one group are on one side" in note
