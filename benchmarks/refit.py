"""Fit again what is fitted after training, on a finished run: `python benchmarks/refit.py runs/NAME`.

For runs of an older version, and to see what a change of the fit does without training again.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from mla_serve.table import read_table
from mla_serve.train.data.checks import DATA
from mla_serve.train.data.samples import decode_rows
from mla_serve.train.data.split import split_validation
from mla_serve.train.fit.after_training import establish
from mla_serve.train.run_folder import RUN, UNFAMILIAR, RunFolder


def refit(run: Path) -> list[str]:
    """Rewrite a run's fusion, scores and references; returns the notes."""
    folder = RunFolder(run)
    facts, recipe = folder.read_json(), folder.read_recipe()
    strategy = folder.restore(recipe.build())
    rows = dict(read_table(Path(facts["data"])).splits)
    if "val" not in rows:
        rows["train"], rows["val"], _ = split_validation(rows["train"], 0.2, facts["config"]["seed"])
    samples = {split: decode_rows(rows[split], recipe.inputs, recipe.classes) for split in ("train", "val")}
    trust = establish(strategy, recipe.inputs, samples, rows, torch.device("cpu"), facts["config"]["seed"])
    folder.write_bytes(UNFAMILIAR, trust.references.to_bytes())
    planned = [note for note in facts["notes"] if " rows for " in note or note.startswith(("validation:", DATA))]
    fitted = {"fusion": dataclasses.asdict(trust.fusion), "conformal": trust.conformal}
    folder.write_json(RUN, facts | fitted | {"notes": [*planned, *trust.notes]})
    return trust.notes


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument, *refit(Path(argument)), sep="\n  ")
