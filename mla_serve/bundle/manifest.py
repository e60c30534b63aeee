"""The bundle: a folder of ONNX graphs with manifest.json, which lists every other file with its sha256.

The manifest contains its own sha256 too. Loading a bundle checks all of them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mla_serve.bundle.about import About
from mla_serve.errors import BundleError
from mla_serve.fusion.formula import Fusion
from mla_serve.fusion.intervals import Intervals
from mla_serve.fusion.novelty import References
from mla_serve.fusion.rules import RULES
from mla_serve.inputs import INPUTS, Input, Payload
from mla_serve.inputs.base import NAME_PATTERN
from mla_serve.tasks import TASKS, Task, task_from_dict

FORMAT = 2
READABLE = (1, 2)
MANIFEST = "manifest.json"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Modality(_Strict):
    """One modality: the kind and fields of its input, the graph of its encoder, the name of its head."""

    kind: str
    input: dict[str, Any]
    encoder: str
    head: str


class FusionParameters(_Strict):
    """The fitted parameters of the fusion: the fields of fusion.formula.Fusion."""

    temperatures: dict[Name, Positive]
    sharpness: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    scales: dict[str, Positive]
    discounts: dict[Name, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    shares: dict[Name, Positive] = {}
    prior: list[Annotated[float, Field(allow_inf_nan=False)]] = []
    prior_once: bool = False
    prior_shift: list[Annotated[float, Field(allow_inf_nan=False)]] = []
    shift_scale: Positive = 1.0
    native: str = "paper"
    bias: list[Annotated[float, Field(allow_inf_nan=False)]] = []


StoredPayload = str | list[float] | dict[str, bool | float | str | None]


class Golden(_Strict):
    """One sample that is replayed at start.

    payloads: by modality, a text, a list of numbers, cells by column, or the name of a file of the bundle, which holds the
    payload: many numbers as a JSON list.
    answer: (A,), see Task.plain, from torch at export, or from the exported graphs when their precision is not fp32, or when the
    bundle was fitted again.
    truth: the label of the row: a class, a list of labels, or a number; None for generated payloads and in older bundles.
    """

    payloads: dict[Name, StoredPayload]
    answer: list[float]
    truth: str | list[str] | float | None = None


class Manifest(_Strict):
    """The content of manifest.json. `sha256` is the hash of all other fields."""

    format: int = FORMAT
    name: str
    created: str
    versions: dict[str, str]
    task: dict[str, Any]
    """What is predicted, see Task.to_dict."""
    modalities: Annotated[dict[Name, Modality], Field(min_length=1)]
    heads: Annotated[dict[Name, str], Field(min_length=1)]
    fusion: FusionParameters
    conformal: dict[str, dict[str, list[Share]]] = {}
    """Scores of prediction sets in bundles of format 1 and extensions of them, see Intervals.of_format_1."""
    intervals: str | None = None
    """The file with the thresholds of prediction sets or intervals."""
    unfamiliar: str | None = None
    """The file with the references that unfamiliar input is detected by."""
    golden: list[Golden]
    golden_source: str
    tolerance: Positive
    parity: dict[str, Any]
    precision: dict[str, Any] = {}
    """The precisions that were tried for the encoders, measured and chosen (export/choose_precision.py); empty for plain fp32."""
    metrics: dict[str, Any]
    training: dict[str, Any]
    about: About = About()
    """What the one who trained it says about it."""
    table: dict[str, Any] = {}
    """What each column of the training table is (table/schema.py), so that other tables are read alike. Empty in bundles of
    older versions: columns are then read by the names of modalities."""
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    sha256: str = ""

    @property
    def classes(self) -> list[str]:
        """The names of the classes or labels; none for a number."""
        return [*self.task.get("classes", []), *self.task.get("labels", [])]

    def digest(self) -> str:
        """Hash all fields except the hash."""
        return _digest(self.model_dump(mode="json"))


class Bundle:
    """A verified bundle in memory: the manifest and the content of every file it names."""

    def __init__(self, folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Take a manifest and files that `load` has verified."""
        self.folder = folder
        self.manifest = manifest
        self._files = files
        self.inputs = {name: self._input(name, modality) for name, modality in manifest.modalities.items()}
        self.task = read_task(manifest)
        self.fusion = Fusion(**manifest.fusion.model_dump(), task=self.task)
        self.intervals = self._read_intervals(manifest.intervals)
        self.references = self._read_references(manifest.unfamiliar)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read and verify a bundle.

        Raises: BundleError, with the file's name, for a missing, changed or unlisted path, or an unknown version.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        files = {name: _read_verified(folder, name, sha256) for name, sha256 in manifest.files.items()}
        _check_consistency(manifest)
        return cls(folder, manifest, files)

    def read(self, name: str) -> bytes:
        """Return the verified content of a file that the manifest lists."""
        return self._files[name]

    def golden_samples(self) -> list[dict[str, Payload]]:
        """Return the payloads of the golden samples, as a caller would send them."""
        return [
            {name: self._golden_payload(name, value) for name, value in golden.payloads.items()}
            for golden in self.manifest.golden
        ]

    def golden_answers(self) -> np.ndarray[Any, Any]:
        """Return the answers to the golden samples at export: (B, A), see Task.plain."""
        return np.array([golden.answer for golden in self.manifest.golden])

    def _golden_payload(self, name: str, value: StoredPayload) -> Payload:
        if not _is_file(self.inputs[name], value):
            return value
        content = self.read(str(value))
        return content if self.inputs[name].sent_as == "file" else _read_numbers(content, str(value))

    def _read_references(self, name: str | None) -> References:
        with self._usable(name):
            return References.from_bytes(self.read(name)) if name else References({})

    def _read_intervals(self, name: str | None) -> Intervals:
        with self._usable(name):
            if name:
                return Intervals.from_bytes(self.task, self.read(name), self.manifest.conformal)
            return Intervals.of_format_1(self.task, self.manifest.conformal)

    @contextlib.contextmanager
    def _usable(self, name: str | None) -> Iterator[None]:
        """Turn what reading a damaged file raises into a BundleError with its name."""
        try:
            yield
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{self.folder / str(name)}: cannot be used ({error!r}); export the bundle again"
            ) from None

    def _input(self, name: str, modality: Modality) -> Input:
        if modality.kind not in INPUTS:
            raise BundleError(f"{MANIFEST}: modality {name} is of kind {modality.kind!r}; known are {sorted(INPUTS)}")
        try:
            return INPUTS[modality.kind].from_fields(modality.input, self.read)
        except BundleError as error:
            raise BundleError(f"{self.folder / MANIFEST}: {name}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{MANIFEST}: the input fields of {name} cannot be used ({error!r})") from None


def _is_file(kind: Input | type[Input], payload: StoredPayload) -> bool:
    """Return whether a golden payload is the name of a file."""
    return kind.sent_as == "file" or (kind.sent_as == "numbers" and isinstance(payload, str))


def _read_numbers(content: bytes, name: str) -> list[float]:
    """Read a golden payload of numbers. Raises: BundleError."""
    try:
        numbers: list[float] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name}: cannot be used ({error}); export the bundle again") from None
    return numbers


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Put the hash of every file of the folder into the manifest and write it; return the manifest as written."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: _sha256((folder / name).read_bytes()) for name in names if name != MANIFEST}
    manifest = manifest.model_copy(update={"files": files})
    manifest = manifest.model_copy(update={"sha256": manifest.digest()})
    (folder / MANIFEST).write_text(_join_number_lists(manifest.model_dump_json(indent=1)) + "\n", encoding="utf-8")
    return manifest


def _join_number_lists(text: str) -> str:
    """Put each list of numbers on one line of indented JSON.

    The texts stay as they are: in JSON a text has no line break, and what is joined begins with one and has no quotation mark.
    """
    return re.sub(r"\[\n([-+.eE\d,\s]+)\]", lambda found: f"[{', '.join(found[1].replace(',', ' ').split())}]", text)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        content = json.loads(_read(path))
    except FileNotFoundError:
        raise BundleError(
            f"{path}: no such file; a bundle is a folder that `mla-serve train` or `mla-serve export` wrote"
        ) from None
    except NotADirectoryError:
        raise BundleError(f"{folder}: it is a file; expected a bundle, the folder that train or export wrote") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); export the bundle again") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version not in READABLE:
        raise BundleError(
            f"{path}: format {version!r}, this version reads {' and '.join(map(str, READABLE))}; export the bundle again"
        )
    try:
        manifest = Manifest.model_validate(_upgrade(content) if version == 1 else content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {where}: {first['msg']}; export the bundle again") from None
    if _digest(content) != manifest.sha256:
        raise BundleError(f"{path}: its content does not match its sha256; it was changed after the export")
    return manifest


def _upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest of format 1, which knew no task but classes, as format 2. Its sha256 stays."""
    fields = {key: value for key, value in content.items() if key != "classes"} | {"format": FORMAT}
    golden = [
        {"answer" if key == "probabilities" else key: value for key, value in one.items()}
        for one in content.get("golden", [])
    ]
    return fields | {"task": {"name": "classes", "classes": content.get("classes", [])}, "golden": golden}


def read_task(manifest: Manifest) -> Task:
    """Return what the bundle predicts. Raises: BundleError for a task that this version does not know."""
    try:
        task = task_from_dict(manifest.task)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{MANIFEST}: the task {manifest.task.get('name')!r} cannot be read ({error!r}); known are {', '.join(TASKS)}"
        ) from None
    if task.name == "classes" and len(task.names) < 2:
        raise BundleError(f"{MANIFEST}: has {len(task.names)} classes, expected two at least; export the bundle again")
    return task


def _read_verified(folder: Path, name: str, sha256: str) -> bytes:
    relative = PurePosixPath(name)
    path = folder / relative
    if relative.is_absolute() or ".." in relative.parts or not _is_within(path, folder):
        raise BundleError(f"{folder / MANIFEST}: the path {name!r} leaves the bundle's folder")
    try:
        content = _read(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); the bundle is incomplete") from None
    if _sha256(content) != sha256:
        raise BundleError(f"{path}: its sha256 is not the manifest's; the file is damaged or was changed")
    return content


def _is_within(path: Path, folder: Path) -> bool:
    """Return whether a path is inside the folder after its links are followed. realpath accepts circular links."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _read(path: Path) -> bytes:
    """Read a file.

    Raises: OSError, also for anything but a plain file: reading a pipe might never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no plain file")
    return path.read_bytes()


def _check_consistency(manifest: Manifest) -> None:
    """Refuse a manifest whose parts contradict each other. Raises: BundleError."""
    names = set(manifest.modalities)
    graphs = {modality.encoder for modality in manifest.modalities.values()} | set(manifest.heads.values())
    if missing := graphs - set(manifest.files):
        raise BundleError(f"{MANIFEST}: names graphs that it does not list as files: {sorted(missing)}")
    if missing := {modality.head for modality in manifest.modalities.values()} - set(manifest.heads):
        raise BundleError(f"{MANIFEST}: names heads that it does not have: {sorted(missing)}")
    if set(manifest.fusion.temperatures) != names:
        raise BundleError(
            f"{MANIFEST}: has temperatures for {sorted(manifest.fusion.temperatures)}, not {sorted(names)}"
        )
    for name in (manifest.unfamiliar, manifest.intervals):
        if name is not None and name not in manifest.files:
            raise BundleError(f"{MANIFEST}: names {name!r}, which it does not list as a file")
    if manifest.fusion.native not in RULES or manifest.fusion.native == "native":
        raise BundleError(
            f"{MANIFEST}: the native rule {manifest.fusion.native!r} is not known; known are {sorted(RULES)}"
        )
    outputs = read_task(manifest).outputs
    if len(manifest.fusion.bias) not in (0, outputs):
        raise BundleError(f"{MANIFEST}: has a bias for {len(manifest.fusion.bias)} of {outputs} outputs of a head")
    for name, values in (("prior", manifest.fusion.prior), ("prior_shift", manifest.fusion.prior_shift)):
        if len(values) not in (0, outputs):
            raise BundleError(f"{MANIFEST}: has {len(values)} numbers as {name}, expected {outputs}")
    if manifest.fusion.prior_once and not manifest.fusion.prior:
        raise BundleError(f"{MANIFEST}: counts the prior once, but has none")
    if any(scores != sorted(scores) for rules in manifest.conformal.values() for scores in rules.values()):
        raise BundleError(f"{MANIFEST}: the conformal scores are not sorted")
    for golden in manifest.golden:
        if not golden.payloads or set(golden.payloads) - names or len(golden.answer) != outputs:
            raise BundleError(f"{MANIFEST}: a golden sample does not fit the modalities and the task")
        for name, payload in golden.payloads.items():
            kind = INPUTS.get(manifest.modalities[name].kind)
            if kind is not None and _is_file(kind, payload) and payload not in list(manifest.files):
                raise BundleError(f"{MANIFEST}: a golden sample names {payload!r}, which it does not list as a file")


def _digest(content: Mapping[str, Any]) -> str:
    """Hash the JSON of a manifest. Fields that a later version adds to the model with a default do not change it."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return _sha256(json.dumps(rest, sort_keys=True, ensure_ascii=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
