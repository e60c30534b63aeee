"""The folder of finished parts, and the file that they are joined to. A part is written under another name and renamed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from mla_serve.bulk.own_columns import cast, unify
from mla_serve.bulk.writers import ANSWERS, PROBABILITIES, WRITERS, flatten_probabilities
from mla_serve.errors import ConfigError, DataError
from mla_serve.output.replacing import replace
from mla_serve.output.targets import cannot_write

T = TypeVar("T")
PLAN, JOINED = "plan.json", "joined.tmp"
PART_FILES = r"plan\.(json|tmp)|\d{8,}\.(parquet|tmp)|joined\.tmp(\.old)?"


@dataclasses.dataclass(frozen=True)
class Joined:
    """Rows without an answer, and rows that were answered although a modality could not be read."""

    bad: int
    partial: int


class Parts:
    """The folder OUT.parts: plan.json, which identifies table, model and options, and the parts 00000000.parquet, ..."""

    def __init__(self, out: Path) -> None:
        """Take the path of the file that the parts will be joined to."""
        self.out = out
        self.folder = out.with_name(out.name + ".parts")

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Make the folder, or continue with one that has the same plan.

        Raises: ConfigError when its plan differs, when it holds other files, or when it cannot be made.
        """
        file = self.folder / PLAN
        try:
            self._refuse_foreign_files()
            if not file.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                _write(file, json.dumps(plan, indent=1).encode())
                return
            before = dict(json.loads(file.read_text()))
        except OSError as error:
            raise ConfigError(f"--out: {self.folder} {cannot_write(error, 'choose another place')}") from None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{file}: cannot be read ({error}); remove the folder to start anew") from None
        if changed := [key for key in plan if plan[key] != before.get(key)]:
            raise ConfigError(
                f"{self.folder} holds parts of another scoring: {', '.join(changed)} changed; "
                "give the same again to continue it, or remove the folder to start anew"
            )

    def _refuse_foreign_files(self) -> None:
        """Refuse a folder that holds other files, or parts without a plan. Raises: ConfigError."""
        if not self.folder.exists():
            return
        names = sorted(path.name for path in self.folder.iterdir())
        foreign = [name for name in names if not re.fullmatch(PART_FILES, name)]
        if PLAN not in names:
            foreign += [name for name in names if name.endswith(".parquet")]
        if foreign:
            raise ConfigError(
                f"--out {self.out}: {self.folder} holds {foreign[0]}, which predict did not write; move it away, or "
                "choose another --out"
            )

    def has(self, number: int) -> bool:
        """Return whether a part is finished."""
        return self._path(number).exists()

    def finished(self) -> frozenset[int]:
        """Return the numbers of the finished parts."""
        return frozenset(int(path.stem) for path in self.folder.glob("*.parquet"))

    def keep(self, number: int, answers: pa.Table) -> None:
        """Write one part.

        Raises: DataError when it cannot be written, for example to a full disk.
        """
        temporary = self._path(number).with_suffix(".tmp")
        try:
            parquet.write_table(answers, temporary)
            temporary.replace(self._path(number))
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DataError(
                f"{self.folder}: a part cannot be written ({error}); make room and run the same command again to continue"
            ) from None

    def finish(self, count: int, *, flat: bool = False) -> Joined:
        """Join the parts in their order into OUT, in the format of its suffix, and remove them.

        An older file of answers is kept as OUT.old.

        Args: flat, whether each class gets a column of its own; otherwise CSV has no probabilities of the classes.
        Raises: DataError when a part is missing or cannot be read; an unreadable one is removed, to be computed again.
        ConfigError when OUT is something else by now; the parts are kept.
        """
        temporary = self.folder / JOINED
        try:
            joined = self._join(temporary, count, flat)
            replace("--out", temporary, self.out, ANSWERS)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.folder}: the parts cannot be joined ({error}); run it again") from None
        finally:
            temporary.unlink(missing_ok=True)
        self.discard()
        return joined

    def _join(self, path: Path, count: int, flat: bool) -> Joined:
        """Write all parts into one file."""
        schema = unify([self._read(number, parquet.read_schema) for number in range(count)])
        bad = partial = 0
        suffix = self.out.suffix.lower()

        def shaped(part: pa.Table) -> pa.Table:
            if flat:
                return flatten_probabilities(part)
            dropped = [PROBABILITIES] if suffix == ".csv" and PROBABILITIES in part.schema.names else []
            return part.drop_columns(dropped)

        with WRITERS[suffix](path, shaped(schema.empty_table()).schema) as write:
            for number in range(count):
                part = cast(self._read(number, parquet.read_table), schema)
                answered = part["error"].is_null()
                bad += len(part) - pc.sum(answered).as_py()
                partial += pc.sum(pc.and_(answered, has_faults(part))).as_py()
                write(shaped(part))
        return Joined(bad, partial)

    def discard(self) -> None:
        """Remove the parts, and the folder when it is empty then."""
        for path in self.folder.iterdir():
            if re.fullmatch(PART_FILES, path.name):
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _read(self, number: int, read: Callable[[Path], T]) -> T:
        try:
            return read(self._path(number))
        except pa.ArrowInvalid:  # after a power cut, files may exist and be empty
            self._path(number).unlink()
            raise

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.parquet"


def has_faults(part: pa.Table) -> pa.Array:
    """Return for each row whether a modality could not be read: (rows,) bool."""
    faults = part["faults"].combine_chunks().flatten()
    return functools.reduce(pc.or_, (pc.is_valid(reasons) for reasons in faults))


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
