"""The settings of a training run: one frozen dataclass, from which the flags of `mla-serve train` are generated."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Annotated

import tyro

from mla_serve.console import require_extra
from mla_serve.errors import ConfigError
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.table.faults import MOST_SHOWN
from mla_serve.table.options import TableOptions
from mla_serve.tasks import TASKS

AUGMENT = ("auto", "none", "light", "photo")
BALANCE = ("none", "prior", "weights", "sampler")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train encoders for every modality of a table and one shared head, and export them as a bundle that can be served."""

    data: Path | None = None
    """Table (CSV, TSV, JSON, Parquet, Arrow or Excel), or folder with one, with train/val/test tables, with a Hugging Face data
    set or with a folder of files per class. Without it, a generated data set is used: keypad."""

    label: str | None = None
    """Column of the labels, or several yes/no columns, one of each label, separated by commas. Default: label, or the only
    column of a usual name such as target, class or category."""
    task: str | None = None
    """What is predicted: classes (one of several), labels (any number of them) or number. Default: inferred from the
    labels, and said."""
    label_separator: str | None = None
    """What stands between the labels in a cell, such as ";". Default: inferred where it is clear."""
    kinds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN=KIND [...]")] = ()
    """What columns hold, where the table is understood wrongly: image, audio, text, vector, number, category, date,
    yes_no, id or ignore."""
    group: str | None = None
    """Column of the subjects, such as persons or sessions: rows of one subject stay on one side of a split."""
    val_share: float | None = None
    """Share of the rows for validation, if the table does not say which. Default: 0.15, or 0.2 of a table train."""
    test_share: float | None = None
    """Share of the rows for test, if the table names no splits. Default: 0.15; 0 with --folds."""
    folds: int = 0
    """Number of trainings for cross-validation before the final one: each is measured on rows that it has not seen, all
    together on every row, and the final model's fusion and prediction sets are fitted to these answers. For few rows; 5 is
    usual. Default: none; 5 where fewer than 300 rows are for validation and only heads, columns and vectors are trained beside
    frozen encoders."""
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
    """Name of the model. Default: that of the table or its folder, or keypad; with --extend that of the bundle and _extended."""
    out: Path | None = None
    """Folder that the bundle is written to. Default: models/NAME."""
    runs: Path = Path("runs")
    """Folder of all runs: RUNS/NAME holds configuration, checkpoints and metrics."""
    strategy: str = "mla"
    """Training strategy: mla, ensemble, joint_concat, joint_dropout, ogm_ge, qmf, joint_sum, joint_unimodal, mmpareto,
    dus or mib."""
    epochs: int | None = None
    """Passes over the training rows. Default: 30, more where that gives few steps (100 at most); 12 for the generated data."""
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
    its report. Anyone who can call the service can see both."""
    about: Path | None = None
    """Markdown file under the headings Purpose, Do not use it for, Data and Licence. The pages of the service, the report
    and the model card show it."""

    encoders: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=ENCODER [...]")] = ()
    """Encoders by modality, such as image=resnet18, or text=hf:NAME_OR_FOLDER for a pretrained transformers model.
    Default: small."""
    tune: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=TUNE [...]")] = ()
    """How pretrained encoders are trained, by modality: frozen (the default: features are computed once and kept), lora
    (low-rank matrices beside its linear layers) or full."""
    lora_rank: int = 8
    """Rank of the matrices of lora."""
    cache: Path | None = None
    """Folder for decoded pictures, recordings and texts, and for the features of frozen encoders. Later runs of the same
    files use them again; `mla-serve cache` lists them and cleans up. Default: .cache in --runs."""
    width: int = 128
    """Number of features, D."""
    batch_size: int | None = None
    """Rows per batch, those of all processes together. Default: 64."""
    lr: float = 2e-3
    """Highest learning rate of the one-cycle schedule."""
    weight_decay: float = 0.05
    """Decoupled weight decay: a step shrinks the weights by this times the learning rate, with both optimisers."""
    label_smoothing: float = 0.05
    """Part of the target that is spread over all classes. For classes only: labels and numbers have none."""
    optimizer: str = "adamw"
    """adamw or sgd."""
    hgm: str | None = None
    """Head gradient modification, of mla and dus: subspace (default: project the head's steps off the leading directions of
    the other modalities' features), the paper's recursive projector, which is reset each epoch (epoch), every N turns (N) or
    never (no-reset), or off."""
    heads: str | None = None
    """Heads, of mla and dus: shared (the default) or separate."""
    turns: str | None = None
    """Order of the modalities' turns, of mla and dus: all (the default), shuffled (an order drawn for each batch), or
    weak (a modality far ahead of the others skips every second batch; not for numbers)."""
    augment: str = "auto"
    """Augment training samples: none, light (moves and bends pictures a little, changes recordings, mistypes texts), photo
    (as light, but pictures are mirrored and cropped, and their colours changed), or auto: photo for photographs, light for
    all else, none for the generated data, which is corrupted already."""
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
    balance: str = "none"
    """What is done where some classes have many more rows than others: none (answers assume the class frequencies of
    training), prior (answers assume equally frequent classes), weights or sampler (the same answers, and rare classes count
    more, or occur more often, in training)."""
    threshold: str | None = None
    """How the probability from which a label is answered is fitted, where rows have any number of labels: f1 (the highest
    F1 of each label on validation rows, the default) or precision (at least --min-precision)."""
    min_precision: float | None = None
    """Precision that each answered label must have on validation rows, with --threshold precision, such as 0.9."""
    patience: int | None = None
    """Stop after this many epochs without a better checkpoint. Default: train all epochs, because the learning rate falls
    until the last one."""
    time_limit: float | None = None
    """Minutes that training may take, without export. The learning rate falls faster where the epochs do not fit."""
    clip: float | None = None
    """Largest norm of the gradients of a step; larger ones are scaled down to it. Default: not clipped."""
    accumulate: int = 1
    """Batches per step. N needs the memory of one batch and gives the step of one N times as large."""
    start_from: Path | None = None
    """Folder of an earlier run, RUNS/NAME. Encoders of the same name, kind and type begin with its weights; their input
    settings are taken over. Heads begin anew, so the labels may be others."""

    threads: int | None = None
    """CPU threads. Default: all cores; under torchrun, the cores divided by the processes."""

    log: str | None = None
    """tensorboard: also write the numbers of each epoch as event files to RUNS/NAME/tensorboard. Needs the extra tensorboard."""

    @property
    def known_epochs(self) -> int:
        """Return the epochs, once `with_defaults` has filled them in."""
        assert self.epochs is not None
        return self.epochs

    @property
    def rows_per_step(self) -> int:
        """Return the rows of the batches that one step takes, once `with_defaults` has filled them in."""
        assert self.batch_size is not None
        return self.batch_size * self.accumulate

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
            0.0 if self.folds and self.test_share is None else self.test_share,
            self.seed,
            self.skip_bad,
            self.skip_bad_values,
            self.show,
            task=self.task,
            separator=self.label_separator,
        )

    def check(self) -> None:
        """Refuse settings out of range, before anything is read.

        Raises: ConfigError.
        """
        for flag, value, low in (
            ("epochs", self.epochs, 1),
            ("batch-size", self.batch_size, 2),
            ("width", self.width, 2),
            ("show", self.show, 0),
            ("patience", self.patience, 1),
            ("accumulate", self.accumulate, 1),
        ):
            if value is not None and value < low:
                raise ConfigError(f"--{flag} {value}: expected a whole number of at least {low}")
        if not 0 < self.lr < 10:
            raise ConfigError(f"--lr {self.lr}: expected a number between 0 and 10, such as 0.002")
        for flag, number in (("time-limit", self.time_limit), ("clip", self.clip)):
            if number is not None and not 0 < number < math.inf:
                raise ConfigError(f"--{flag} {number}: expected a number above 0")
        if (self.threshold == "precision") != (self.min_precision is not None):
            raise ConfigError("--threshold precision and --min-precision P go together; give both, or neither")
        if self.min_precision is not None and not 0 < self.min_precision < 1:
            raise ConfigError(f"--min-precision {self.min_precision:g}: expected a number between 0 and 1, such as 0.9")
        for flag, chosen, choices in (
            ("threshold", self.threshold, (None, "f1", "precision")),
            ("optimizer", self.optimizer, ("adamw", "sgd")),
            ("precision", self.precision, ("auto", "fp32", "bf16")),
            ("norm", self.norm, (None, "batch", "group")),
            ("augment", self.augment, AUGMENT),
            ("task", self.task, (None, *TASKS)),
            ("balance", self.balance, BALANCE),
        ):
            if chosen not in choices:
                *listed, last = filter(None, choices)
                raise ConfigError(f"--{flag} {chosen}: expected {', '.join(listed)} or {last}")
        if self.name is not None and not re.fullmatch(NAME_PATTERN.replace("_]", "_-]"), self.name):
            raise ConfigError(
                f"--name {self.name}: expected lower-case letters, digits, - and _, starting with a letter"
            )
        if self.log not in (None, "tensorboard"):
            raise ConfigError(f"--log {self.log}: expected tensorboard")
        if self.log:
            require_extra(self.log)
        if self.about is not None and not self.about.is_file():
            raise ConfigError(f"--about {self.about}: no such file")
