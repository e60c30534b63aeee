"""The folder of finished parts, and the one file that is made of them. A part is there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from mla_serve.errors import ConfigError, DataError

PLAN = "plan.json"


class Parts:
    """OUT.parts: plan.json, which says what is scored, and 00000000.parquet and so on."""

    def __init__(self, out: Path) -> None:
        """Take the file that the parts shall become."""
        self.out = out
        self.folder = out.with_name(out.name + ".parts")

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Make the folder, or go on with the one that is there.

        Raises: ConfigError when it belongs to something else.
        """
        file = self.folder / PLAN
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(file, json.dumps(plan, indent=1).encode())
            return
        before = json.loads(file.read_text())
        if changed := [key for key in plan if plan[key] != before.get(key)]:
            raise ConfigError(
                f"{self.folder} holds parts of another scoring: {', '.join(changed)} changed; "
                "give the same again to go on with it, or remove the folder to start anew"
            )

    def has(self, number: int) -> bool:
        """Say whether a part is finished."""
        return self._path(number).exists()

    def keep(self, number: int, answers: pa.Table) -> None:
        """Write one part whole."""
        temporary = self._path(number).with_suffix(".tmp")
        parquet.write_table(answers, temporary)
        temporary.replace(self._path(number))

    def finish(self, count: int) -> int:
        """Make one file of the parts, in their order, and remove them; returns how many rows have an error.

        Raises: DataError when one is missing or cannot be read.
        """
        temporary = self.out.with_name(f".{self.out.name}.tmp")
        bad = 0
        try:
            with parquet.ParquetWriter(temporary, parquet.read_schema(self._path(0))) as writer:
                for number in range(count):
                    part = parquet.read_table(self._path(number))
                    bad += len(part) - part["error"].null_count
                    writer.write_table(part)
            temporary.replace(self.out)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.folder}: the parts cannot be joined ({error}); run it again") from None
        finally:
            temporary.unlink(missing_ok=True)
        self.discard()
        return bad

    def discard(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.parquet"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
