"""A small finished run over images and words, trained once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mla_serve.train.config import TrainConfig
from mla_serve.train.plan import make_plan
from mla_serve.train.run import train_as_planned
from mla_serve.train.run_folder import RunFolder

WORDS = ("rot", "gruen", "blau")


def write_stripes(folder: Path, splits: dict[str, int]) -> Path:
    """Write a table whose images have a bright stripe where the class says, and whose text is the class's name."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in splits.items():
        lines = []
        for number in range(count):
            c = number % 3
            pixels = generator.integers(0, 60, (16, 16), dtype=np.uint8)
            pixels[:, 5 * c : 5 * c + 5] += 180
            Image.fromarray(pixels).save(folder / f"{split}{number}.png")
            line = {"label": WORDS[c], "image": f"{split}{number}.png", "text": f"{WORDS[c]} {number % 5}"}
            if number % 7 == 3:
                del line["image" if number % 2 else "text"]
            lines.append(json.dumps(line))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("stripes")
    data = write_stripes(folder / "data", {"train": 45, "val": 24, "test": 24})
    config = TrainConfig(data=data, name="stripes", runs=folder / "runs", epochs=5, batch_size=15, width=16, lr=0.01)
    return train_as_planned(config, make_plan(config), lambda record: None)
