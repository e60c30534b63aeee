"""Deal a data set into new splits: `python benchmarks/resplit.py DATA OUT SEED`, to check on fresh rows what was chosen on old ones.

The values of train, val and test are pooled, modality by modality, and dealt again by group (speaker, writer, language),
so that no group is in two splits; the new test takes groups of the old train alone. Then values of the same class are put
together at random, each used once. For data whose pairing is by class anyway, such as tri-digits.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mla_serve.table import Row, read_table
from mla_serve.table.dataset import SPLITS, Value

SHARE = 1 / 6  # of a modality's values, in val and in test each
Dealt = dict[str, dict[str, list[tuple[Value, str]]]]  # split -> label -> (value, group)


def resplit(data: Path, out: Path, seed: int) -> None:
    """Write the new tables, dataset.json and copies of the files into an empty folder; print who is in val and test."""
    table = read_table(data)
    generator = np.random.default_rng(seed)
    out.mkdir(parents=True)
    dealt = {name: deal(table.splits, name, generator) for name in table.modalities}
    for split in SPLITS:
        rows = [
            {"id": f"{split}-{label}-{n}", "label": label} | columns
            for label in table.classes
            for n, columns in enumerate(_paired(dealt, split, label, table.folder, out, generator))
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        groups = {name: {group for each in dealt[name][split].values() for _, group in each} for name in dealt}
        told = [f"{name} {sorted(own) if len(own) < 5 else len(own)}" for name, own in groups.items()]
        print(f"{split}: {len(rows)} rows; groups: {', '.join(told)}")
    group = {"group": {name: f"group.{name}" for name in dealt}}
    (out / "dataset.json").write_text(json.dumps(group) + "\n", encoding="utf-8")


def deal(splits: Mapping[str, Sequence[Row]], name: str, generator: np.random.Generator) -> Dealt:
    """Give whole groups of a modality to test, from those of the old train, then to val, and the rest to train."""
    by_group: defaultdict[str, list[Row]] = defaultdict(list)
    for row in (row for rows in splits.values() for row in rows if name in row.values):
        by_group[row.groups[name]].append(row)
    total = sum(map(len, by_group.values()))
    seen = {row.groups[name] for row in splits["train"] if name in row.groups}
    left, home = generator.permutation(sorted(by_group)).tolist(), dict.fromkeys(by_group, "train")
    for split, allowed in (("test", seen), ("val", set(by_group))):
        held = 0
        for group in [one for one in left if one in allowed]:
            if held < SHARE * total - 1:
                held += len(by_group[group])
                home[group] = split
                left.remove(group)
    dealt: Dealt = {split: defaultdict(list) for split in SPLITS}
    for group, rows in by_group.items():
        for row in rows:
            dealt[home[group]][row.label].append((row.values[name], group))
    return dealt


def _paired(
    dealt: Mapping[str, Dealt], split: str, label: str, folder: Path, out: Path, generator: np.random.Generator
) -> list[dict[str, object]]:
    """Put values of one class together: as many rows as the modality with the fewest has values."""
    count = min(len(dealt[name][split][label]) for name in dealt)
    rows: list[dict[str, object]] = [{"group": {}} for _ in range(count)]
    for name in dealt:
        values = dealt[name][split][label]
        for row, at in zip(rows, generator.permutation(len(values)), strict=False):
            value, group = values[at]
            row[name] = _copied(value, folder, out) if isinstance(value, Path) else value
            row["group"] = {**row["group"], name: group}  # type: ignore[dict-item]
    return rows


def _copied(file: Path, folder: Path, out: Path) -> str:
    name = file.relative_to(folder)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, out / name)
    return name.as_posix()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    resplit(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
