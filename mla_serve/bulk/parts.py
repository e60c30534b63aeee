"""The folder of finished parts, and the file that they are joined to. A part is written under another name and renamed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from mla_serve.errors import ConfigError, DataError
from mla_serve.output.replacing import replace
from mla_serve.output.targets import Replaceable, cannot_write

PLAN, JOINED = "plan.json", "joined.tmp"
PART_FILES = r"plan\.(json|tmp)|\d{8,}\.(parquet|tmp)|joined\.tmp(\.old)?"
ANSWER_COLUMNS = {"row", "id", "label", "probability", "probabilities", "error"}


def _not_answers(path: Path) -> str | None:
    """Return why a file is not one that predict wrote."""
    try:
        columns = set(parquet.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return "is no Parquet file of answers"
    return None if columns >= ANSWER_COLUMNS else "is another Parquet file, no answers of a model"


ANSWERS = Replaceable("a file of answers that predict wrote", _not_answers)


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

    def finish(self, count: int) -> int:
        """Join the parts in their order into OUT and remove them; return how many rows have an error.

        An older file of answers is kept as OUT.old.

        Raises: DataError when a part is missing or cannot be read; an unreadable one is removed, to be computed again.
        ConfigError when OUT is something else by now; the parts are kept.
        """
        temporary = self.folder / JOINED
        bad = 0
        try:
            with parquet.ParquetWriter(temporary, self._read(0).schema) as writer:
                for number in range(count):
                    part = self._read(number)
                    bad += len(part) - part["error"].null_count
                    writer.write_table(part)
            replace("--out", temporary, self.out, ANSWERS)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.folder}: the parts cannot be joined ({error}); run it again") from None
        finally:
            temporary.unlink(missing_ok=True)
        self.discard()
        return bad

    def discard(self) -> None:
        """Remove the parts, and the folder when it is empty then."""
        for path in self.folder.iterdir():
            if re.fullmatch(PART_FILES, path.name):
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _read(self, number: int) -> pa.Table:
        try:
            return parquet.read_table(self._path(number))
        except pa.ArrowInvalid:  # after a power cut, files may exist and be empty
            self._path(number).unlink()
            raise

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.parquet"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
