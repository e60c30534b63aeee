"""The settings of a training run: one frozen dataclass, from which the flags of `mla-serve train` are generated."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated

import tyro

from mla_serve.errors import ConfigError
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.table.faults import MOST_SHOWN
from mla_serve.table.options import TableOptions


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train encoders for every modality of a table and one shared head, and export them as a bundle that can be served."""

    data: Path | None = None
    """Folder with train/val/test tables (.jsonl, .csv or .parquet). Without it, a generated data set is used: keypad."""

    label: str | None = None
    """Column of the classes. Default: label, or the only column of a usual name such as target, class or category."""
    kinds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN=KIND [...]")] = ()
    """What columns hold, where the table is understood wrongly: image, audio, text, vector, number, category, date,
    yes_no, id or ignore."""
    group: str | None = None
    """Column of the subjects, such as persons or sessions: rows of one subject stay on one side of a split."""
    val_share: float | None = None
    """Share of the rows for validation, if the table does not say which. Default: 0.15, or 0.2 of a table train."""
    test_share: float | None = None
    """Share of the rows for test, if the table names no splits. Default: 0.15."""
    skip_bad: bool = False
    """Train without the rows that have faults, and without classes of one row. How many, and where they are, is printed,
    and all faults are listed in RUNS/NAME.faults.csv. Default: any fault is an error."""
    skip_bad_values: bool = False
    """Train without the values that have faults, such as a broken picture. The rest of the row is used."""
    show: int = MOST_SHOWN
    """Number of faults in an error message."""

    extend: Path | None = None
    """Folder of a bundle to add modalities to. Encoders are trained for the modalities that the table has and the bundle
    lacks, against the head of the bundle. The new bundle answers as the old one where the new modality is missing."""
    name: str | None = None
    """Name of the model. Default: that of the data folder, or keypad; with --extend that of the bundle and _extended."""
    out: Path | None = None
    """Folder that the bundle is written to. Default: models/NAME."""
    runs: Path = Path("runs")
    """Folder of all runs: RUNS/NAME holds configuration, checkpoints and metrics."""
    strategy: str = "mla"
    """Training strategy: mla, ensemble, joint_concat, joint_dropout, ogm_ge, qmf, joint_sum, joint_unimodal, mmpareto,
    dus or mib."""
    epochs: int | None = None
    """Passes over the training rows. Default: 30, or 12 for the generated data."""
    seed: int = 0
    """Seed of all random numbers: the same seed gives the same model."""
    modalities: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Modalities to use, in this order; with --extend those to add. Default: all that the table has."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    resume: bool = False
    """Resume the unfinished run of this name. The result is the same, to the bit, as without the interruption."""
    samples: bool = False
    """Put up to ten training rows into the bundle instead of generated samples, and the worst mistakes on test rows into
    its report. Anyone who can call the service can see those training rows."""
    about: Path | None = None
    """Markdown file on the data's source and licence, quoted in the model card."""

    encoders: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=ENCODER [...]")] = ()
    """Encoders by modality, such as image=resnet18, or text=hf:NAME_OR_FOLDER for a pretrained transformers model.
    Default: small."""
    tune: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=TUNE [...]")] = ()
    """How pretrained encoders are trained, by modality: frozen (the default: features are computed once and kept), lora
    (low-rank matrices beside its linear layers) or full."""
    lora_rank: int = 8
    """Rank of the matrices of lora."""
    cache: Path | None = None
    """Folder for the features that frozen encoders compute; later runs reuse them. Default: features in --runs."""
    width: int = 128
    """Number of features, D."""
    batch_size: int = 64
    """Rows per batch, those of all processes together."""
    lr: float = 2e-3
    """Highest learning rate of the one-cycle schedule."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    label_smoothing: float = 0.05
    """Part of the target that is spread over all classes."""
    optimizer: str = "adamw"
    """adamw or sgd."""
    hgm: str | None = None
    """Head gradient modification, of mla and dus: epoch (default: reset the projector each epoch), no-reset, N (reset
    every N turns), others (project out the other modalities' running means), off."""
    heads: str | None = None
    """Heads, of mla and dus: shared (the default) or separate."""
    turns: str | None = None
    """Order of the modalities' turns, of mla and dus: all (the default), shuffled (an order drawn for each batch), or
    weak (a modality far ahead of the others skips every second batch)."""
    augment: tyro.conf.FlagConversionOff[bool | None] = None
    """Augment training samples. Default: yes, except for the generated data, which is corrupted already."""
    precision: str = "auto"
    """Precision of training: fp32, bf16 (of the encoders' convolutions and matrix products), or auto: bf16 where the
    processor supports it. The precision of the exported graphs is --precision of export."""
    norm: str | None = None
    """Normalisation layers of the built-in encoders: batch, or group, which normalises each sample by itself.
    Default: batch; group under torchrun on the CPU."""
    image_size: int | None = None
    """Side of the square that images are cropped to, in pixels. Default: from the data, at most 96."""
    audio_rate: int | None = None
    """Sampling rate in Hz. Default: that of the data, at most 16000."""
    audio_seconds: float | None = None
    """Length of a window in seconds. Default: long enough for nearly all recordings, at most 10."""
    transliterate: tyro.conf.FlagConversionOff[bool | None] = None
    """Transliterate texts to Latin letters. Default: if the training texts mix scripts."""
    threads: int | None = None
    """CPU threads. Default: all cores; under torchrun, the cores divided by the processes."""

    @property
    def passes(self) -> int:
        """Number of epochs: --epochs, or its default."""
        return (30 if self.data else 12) if self.epochs is None else self.epochs

    @property
    def augments(self) -> bool:
        """Whether training samples are augmented: --augment, or its default."""
        return self.data is not None if self.augment is None else self.augment

    @property
    def table_options(self) -> TableOptions:
        """How the table is read. Raises: ConfigError."""
        pairs = [item.rpartition("=") for item in self.kinds]
        if wrong := [item for item, pair in zip(self.kinds, pairs, strict=True) if not pair[0]]:
            raise ConfigError(f"--kinds {wrong[0]}: expected COLUMN=KIND, such as brand=text")
        return TableOptions(
            self.label,
            {column: kind for column, _, kind in pairs},
            self.group,
            self.val_share,
            self.test_share,
            self.seed,
            self.skip_bad,
            self.skip_bad_values,
            self.show,
        )

    def check(self) -> None:
        """Refuse settings out of range, before anything is read.

        Raises: ConfigError.
        """
        for flag, value, low in (
            ("epochs", self.passes, 1),
            ("batch-size", self.batch_size, 2),
            ("width", self.width, 2),
            ("show", self.show, 0),
        ):
            if value < low:
                raise ConfigError(f"--{flag} {value}: expected a whole number of at least {low}")
        if not 0 < self.lr < 10:
            raise ConfigError(f"--lr {self.lr}: expected a number between 0 and 10, such as 0.002")
        if self.optimizer not in ("adamw", "sgd"):
            raise ConfigError(f"--optimizer {self.optimizer}: expected adamw or sgd")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(f"--precision {self.precision}: expected auto, fp32 or bf16")
        if self.norm not in (None, "batch", "group"):
            raise ConfigError(f"--norm {self.norm}: expected batch or group")
        if self.name is not None and not re.fullmatch(NAME_PATTERN.replace("_]", "_-]"), self.name):
            raise ConfigError(
                f"--name {self.name}: expected lower-case letters, digits, - and _, starting with a letter"
            )
        if self.about is not None and not self.about.is_file():
            raise ConfigError(f"--about {self.about}: no such file")
