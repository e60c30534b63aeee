"""The models, saved once, and a small table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.train.pretrained.zoo import Zoo, save_all


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Save every model once."""
    return save_all(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table of red, green and blue pictures, tones and words; every seventh row lacks something."""
    folder = tmp_path_factory.mktemp("table")
    for split, count in (("train", 36), ("val", 24), ("test", 24)):
        lines = []
        for number in range(count):
            c, stem = number % 3, f"{split}{number}"
            pixels = np.full((30, 40, 3), 90, np.uint8)
            pixels[..., c] = 200 + number
            Image.fromarray(pixels).save(folder / f"{stem}.png")
            tone = 0.3 * np.sin(2 * np.pi * (400 + 900 * c) * np.arange(5000 + 300 * number) / 16_000)
            soundfile.write(folder / f"{stem}.wav", tone, 16_000)
            row = {
                "label": "rgb"[c],
                "image": f"{stem}.png",
                "audio": f"{stem}.wav",
                "text": f"{'rgb'[c] * 5} {number}",
            }
            if number % 7 == 3:
                del row[("image", "audio", "text")[number % 3]]
            lines.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
