"""The interface of a kind of input, and what a kind may override. CONTRIBUTING.md says how to add one."""

from __future__ import annotations

import abc
import dataclasses
import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray

from mla_serve.errors import BundleError

T = TypeVar("T")
Array = NDArray[Any]
SentAs = Literal["file", "text", "numbers", "cells"]
Corruptions = Mapping[str, Callable[..., Any]]
Cell = float | bool | str | datetime.datetime | None
"""One cell of a row of a table; in JSON, a date is ISO 8601 text."""
Payload = bytes | str | Sequence[float] | Mapping[str, Cell]
"""The value of one modality: the bytes of a file, a text, a list of numbers, or cells by the name of their column."""
LARGER = 1.7  # times the size that the model sees: what `generate_large` makes
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"  # of modalities


def name_of_column(column: str) -> str:
    """Return the name that a modality has after its column: in lower case, of the letters a to z, digits and _."""
    return re.sub(r"[^a-z0-9]+", "_", anyascii(column).lower()).strip("_")


def stored_in(filename: str) -> dict[str, str]:
    """Mark a field that is stored in a file of its own beside the manifest."""
    return {"file": filename}


def added_later(default: T) -> T:
    """Make a field that older manifests lack; the default gives their behaviour."""
    field: T = dataclasses.field(default=default, metadata={"later": True})
    return field


@dataclasses.dataclass(frozen=True)
class Input(abc.ABC):
    """Turn one payload into arrays of fixed shape; the same object decodes for training and for serving.

    A subclass is a frozen dataclass. Decoding depends on its fields only, and the manifest stores them.
    """

    kind: ClassVar[str]
    tensor: ClassVar[str]
    """Name of the encoder graph's input."""
    dtype: ClassVar[type[np.generic]]
    sent_as: ClassVar[SentAs]
    """How a caller sends it."""
    formats: ClassVar[tuple[str, ...]] = ()
    """The file formats that are read, when it is sent as a file."""
    corruptions: ClassVar[Corruptions] = {}
    """Ways to spoil it, by name (see corruptions.py). Fusion is fitted on them, evaluation measures them."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one window, without the batch axis."""

    @abc.abstractmethod
    def decode(self, payload: Payload, field: str) -> Array:
        """Decode a payload into its windows.

        Args: payload, as the caller sent it; field, the name for error messages.
        Returns: (W, *shape) of dtype; W is 1 except for long audio. The features of the windows are averaged.
        Raises: InputError, saying what was given, what was expected and what to do.
        """

    @classmethod
    def trial(cls) -> Input | None:
        """Make an input that refuses the files that any input of this kind refuses. None: files are not checked so.

        It checks the files of a table before an input has been chosen for them.
        """
        return None

    @abc.abstractmethod
    def generate(self, generator: np.random.Generator) -> Payload:
        """Make a random valid payload, so that a bundle can be checked without anybody's data."""

    def generate_large(self, generator: np.random.Generator) -> Payload:
        """Make a payload larger than what the model sees, to check resizing and cutting too. Default: `generate`."""
        return self.generate(generator)

    def corrupt(
        self, payload: Payload, field: str, corruption: str | None, severity: int, generator: np.random.Generator
    ) -> Array:
        """Decode a payload that is spoiled by one of `corruptions`; None leaves it as it is.

        By default each decoded window is spoiled, so that decoding cannot undo it.

        Args: severity, 1 to 5; the other arguments as of `decode`.
        Returns: (W, *shape) of dtype.
        """
        windows = self.decode(payload, field)
        if corruption is None:
            return windows
        windows = windows.copy()
        for window in windows:
            self._spoil(window, corruption, severity, generator)
        return windows

    def _spoil(self, window: Array, corruption: str, severity: int, generator: np.random.Generator) -> None:
        """Spoil one window in place."""
        window[...] = self.corruptions[corruption](window, severity, generator)

    def to_fields(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Split into JSON fields and the files that go beside them: ({field: value}, {filename: content})."""
        fields, files = dataclasses.asdict(self), {}
        for spec in dataclasses.fields(self):
            if filename := spec.metadata.get("file"):
                files[filename] = str(fields[spec.name]).encode()
                fields[spec.name] = filename
        return fields, files

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], read: Callable[[str], bytes]) -> Self:
        """Rebuild the input from its fields; `read` returns the content of a file by its name.

        Raises: BundleError when the fields are not those of this class.
        """
        specs = {spec.name: spec for spec in dataclasses.fields(cls)}
        needed = {name for name, spec in specs.items() if "later" not in spec.metadata}
        if not needed <= set(fields) <= set(specs):
            raise unknown_fields(f"{cls.kind} input: expected the fields {sorted(specs)}, got {sorted(fields)}")
        values = {
            name: read(value).decode() if "file" in specs[name].metadata else value for name, value in fields.items()
        }
        return cls(**values)


def unknown_fields(message: str) -> BundleError:
    """Return the error for fields that this version does not know."""
    return BundleError(f"{message}; the bundle was written by another version, export it again")


def list_fields(inputs: Mapping[str, Input]) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """Split all inputs as `to_fields` does: ({name: fields}, {filename: content}).

    Inputs with the same file share it. Where two differ, the later one is named MODALITY.FILE.
    """
    listed: dict[str, dict[str, Any]] = {}
    files: dict[str, bytes] = {}
    for name, spec in inputs.items():
        fields, own = spec.to_fields()
        names = {file: file if files.get(file, own[file]) == own[file] else f"{name}.{file}" for file in own}
        files |= {names[file]: content for file, content in own.items()}
        listed[name] = fields | {
            key: names[value] for key, value in fields.items() if isinstance(value, str) and value in own
        }
    return listed, files
