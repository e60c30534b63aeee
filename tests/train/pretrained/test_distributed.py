"""Pretrained encoders under torchrun: the steps of one process, whether frozen, whole or by LoRA."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mla_serve.bundle.manifest import Bundle
from mla_serve.train.run_folder import METRICS, RunFolder
from tests.train.distributed.launch import ENVIRONMENT, torchrun
from tests.train.pretrained.zoo import Zoo

# Of models without dropout on attention, which transformers draws for a process's own rows.
CHOSEN = {"image": "dinov2", "audio": "ast", "text": "bert"}
TUNES = ("image=full", "audio=lora", "text=frozen")


def command(table: Path, zoo: Zoo, *more: str) -> list[str]:
    """Return the command line of training without augmentation, in fp32."""
    encoders = [f"{name}=hf:{zoo.folder(model)}" for name, model in CHOSEN.items()]
    options = ["--epochs", "3", "--batch-size", "12", "--width", "8", "--augment", "none", "--precision", "fp32"]
    told = ["--data", str(table), "--name", "mine", "--device", "cpu", *options, "--encoders", *encoders]
    return ["-m", "mla_serve.train", *told, "--tune", *TUNES, *more]


def losses(runs: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (runs / "mine" / METRICS).read_text().splitlines())
    return [{key: value for key, value in record.items() if key.startswith("loss/")} for record in records]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(table: Path, zoo: Zoo, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    subprocess.run(
        [sys.executable, *command(table, zoo), "--threads", "1"], cwd=one, env=ENVIRONMENT, check=True, timeout=600
    )
    done = torchrun(*command(table, zoo), cwd=two)
    assert done.returncode == 0, done.stderr
    assert len(losses(two / "runs")) == 3
    for single, shared in zip(losses(one / "runs"), losses(two / "runs"), strict=True):
        assert shared == pytest.approx(single, abs=1e-5)
    pairs = zip(losses(one / "runs"), losses(two / "runs"), strict=True)
    print("largest difference of an epoch's losses:", max(abs(a[key] - b[key]) for a, b in pairs for key in a))
    facts = RunFolder(two / "runs" / "mine").read_json()
    assert facts["processes"] == 2
    assert all(f"weights of {name}" in facts["config"] for name in CHOSEN)
    assert set(Bundle.load(two / "models" / "mine").manifest.modalities) == set(CHOSEN)


def test_batch_normalisation_that_is_trained_is_refused_once(table: Path, zoo: Zoo, tmp_path: Path) -> None:
    image = ["--encoders", f"image=hf:{zoo.folder('resnet')}", "--tune", "image=full", "--modalities", "image,text"]
    told = ["--data", table, "--device", "cpu", "--epochs", "1"]
    done = torchrun("-m", "mla_serve.train", *told, *image, cwd=tmp_path)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert "--tune frozen" in errors[0]
