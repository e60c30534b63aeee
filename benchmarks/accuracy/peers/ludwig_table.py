"""Ludwig on the rows of bench-table, run by an environment of its own: it needs Python 3.12 and a torch of its own.

Frozen features are its vector inputs, numbers and dates its numbers, categories its categories. A missing modality is an
empty cell, which Ludwig fills in: with zeros, the mean, or its unknown category.

    python ludwig_table.py FOLDER        reads rows.json, features.npz, masks.npz; writes answers.npz
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from ludwig.api import LudwigModel

EPOCHS, PATIENCE, BATCH = 60, 10, 64


def main(folder: Path) -> None:
    """Train on train, stop early on val, and answer the test rows under every mask."""
    given = json.loads((folder / "rows.json").read_text())
    features, masks = np.load(folder / "features.npz"), np.load(folder / "masks.npz")
    rows, names, columns = given["rows"], given["names"], given["columns"]
    frame = pd.DataFrame({"label": [row["label"] for row in rows]})
    frame["split"] = [{"train": 0, "val": 1, "test": 2}[row["split"]] for row in rows]
    owned: dict[str, list[str]] = {}
    inputs = []
    for name in names:
        if name in columns:
            owned[name] = [column for column, _ in columns[name]]
            for column, kind in columns[name]:
                frame[column] = [row["cells"].get(column) for row in rows]
                inputs.append(_cell_feature(column, kind))
        else:
            owned[name] = [name]
            # Pictures and texts are standardised by the training rows, as for the other systems.
            vectors = features[name].astype(np.float64)
            there = features[f"{name} present"] & (frame["split"] == 0).to_numpy()
            vectors = (vectors - vectors[there].mean(0)) / np.maximum(vectors[there].std(0), 1e-6)
            frame[name] = [" ".join(f"{x:.5g}" for x in vector) for vector in vectors]
            frame.loc[~features[f"{name} present"], name] = None
            zeros = " ".join(["0"] * vectors.shape[1])
            inputs.append(
                {
                    "name": name,
                    "type": "vector",
                    "preprocessing": {
                        "vector_size": vectors.shape[1],
                        "missing_value_strategy": "fill_with_const",
                        "fill_value": zeros,
                    },
                    "encoder": {"type": "dense", "output_size": 128, "dropout": 0.3},
                }
            )
    config = {
        "input_features": inputs,
        "output_features": [{"name": "label", "type": "category"}],
        "combiner": {"type": "concat", "output_size": 128, "num_fc_layers": 1, "dropout": 0.3},
        "preprocessing": {"split": {"type": "fixed", "column": "split"}},
        "trainer": {"epochs": EPOCHS, "early_stop": PATIENCE, "batch_size": BATCH, "learning_rate": 0.001},
    }
    model = LudwigModel(config, logging_level=logging.ERROR)
    model.train(
        dataset=frame, random_seed=given["seed"], output_directory=str(folder / "out"), skip_save_processed_input=True
    )
    test = frame[frame["split"] == 2].reset_index(drop=True)
    answers = {}
    for condition in masks.files:
        for k, mask in enumerate(masks[condition]):
            asked = test.copy()
            for name, present in zip(names, mask, strict=True):
                for column in owned[name]:
                    asked.loc[~present, column] = None
            given_rows = asked[mask.any(axis=0)]
            predicted, _ = model.predict(dataset=given_rows, skip_save_predictions=True)
            table = np.array([predicted[f"label_probabilities_{label}"] for label in given["classes"]]).T
            answers[f"{condition} {k}"] = np.log(np.maximum(table.astype(np.float64), 1e-9))
    np.savez(folder / "answers.npz", **answers)  # type: ignore[arg-type] # as in table.py


def _cell_feature(column: str, kind: str) -> dict[str, object]:
    if kind == "category":
        strategy = {"missing_value_strategy": "fill_with_const", "fill_value": "<UNK>"}
        return {"name": column, "type": "category", "preprocessing": strategy}
    strategy = {"missing_value_strategy": "fill_with_mean", "normalization": "zscore"}
    return {"name": column, "type": "number", "preprocessing": strategy}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
