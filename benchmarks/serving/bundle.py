"""A bundle of the size that the MLA paper uses, with random weights: ResNet-18 for images and sound, made once and kept.

What it answers means nothing; what it costs is what a trained one of this architecture costs.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mla_serve import __version__
from mla_serve.bundle.manifest import Bundle
from mla_serve.errors import BundleError
from mla_serve.fusion.formula import Fusion
from mla_serve.inputs import AudioInput, ImageInput, Input, TextInput

WIDTH, CLASSES, SAMPLES, SEED = 512, 10, 10, 0
DECISIVE = 30.0  # random features hardly differ; this parts the labels, so that answers can be checked
IMAGE_SIDE, AUDIO_RATE = 224, 16_000
ENCODERS = {"image": "resnet18", "audio": "resnet18", "text": "small"}


def resnet18_bundle(work: Path) -> Path:
    """Return the folder of the bundle, after making it if it is not there or cannot be used."""
    out = work / "resnet18"
    try:
        Bundle.load(out)
    except BundleError:
        _build(work / "resnet18-run", out)
    return out


def _build(run: Path, out: Path) -> None:
    """Write the run folder of a training that never was, and export it."""
    from mla_serve.export.export_run import export_run
    from mla_serve.tasks import Classes
    from mla_serve.train.config import TrainConfig
    from mla_serve.train.recipe import Recipe
    from mla_serve.train.run_folder import BEST, RUN, RunFolder
    from mla_serve.train.strategies import Options

    folder, inputs = RunFolder(run), _inputs()
    recipe = Recipe(Classes(tuple(map(str, range(CLASSES)))), inputs, ENCODERS, WIDTH, "mla", Options())
    strategy = recipe.build(SEED)
    for head in strategy.heads.values():
        head.weight.data *= DECISIVE
    folder.save(BEST, {"weights": strategy.state_dict()})
    generator = np.random.default_rng(SEED)
    folder.write_golden_samples(
        [{name: reader.generate(generator) for name, reader in inputs.items()} for _ in range(SAMPLES)], []
    )
    encoders = tuple(f"{name}={encoder}" for name, encoder in ENCODERS.items())
    training = TrainConfig(name="resnet18", epochs=0, seed=SEED, encoders=encoders, width=WIDTH, augment="none")
    facts = {
        "name": "resnet18",
        "recipe": folder.write_recipe(recipe),
        "config": dataclasses.asdict(training),
        "data": str(run / "none"),
        "fusion": dataclasses.asdict(Fusion.paper(tuple(inputs))),
        "best": {"epoch": 0, "accuracy": 1 / CLASSES, "nll": math.log(CLASSES)},
        "notes": ["random weights: for benchmarks alone"],
        "golden_source": "generated",
        "versions": {"mla_serve": __version__} | {package: version(package) for package in ("torch", "numpy")},
        "machine": f"{platform.system()} {platform.machine()}",
    }
    folder.write_json(RUN, facts)
    export_run(run, out)


def _inputs() -> dict[str, Input]:
    """Choose the inputs: an image as ImageNet's are, a second of sound, a word."""
    from mla_serve.train.encoders.text import train_tokenizer

    draft = TextInput(tokenizer="", length=1)
    generator = np.random.default_rng(SEED)
    tokenizer = train_tokenizer([draft.generate(generator) for _ in range(1000)])
    return {
        "image": ImageInput(IMAGE_SIDE, IMAGE_SIDE, channels=3),
        "audio": AudioInput(AUDIO_RATE, window=AUDIO_RATE, hop=AUDIO_RATE // 2),
        "text": TextInput(tokenizer.to_str(), length=16),
    }
