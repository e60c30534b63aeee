"""Show how far a long piece of work is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Self

import rich.progress

from mla_serve.console import errors

LINE_EVERY_S = 10.0  # where there is no terminal; work that is shorter prints nothing


class Progress:
    """The progress of one piece of work over a number of values, on standard error."""

    def __init__(self, what: str, total: int) -> None:
        """Name the work, such as "decoding", and say how many values it is done for."""
        self._what, self._total, self._done = what, total, 0
        columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
        self._bar = rich.progress.Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
        self._task = self._bar.add_task(what, total=total)
        self._begun = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar; elsewhere than in a terminal, say what was done if lines were printed."""
        self._bar.stop()
        if self._printed > self._begun:
            self._print()

    def advance(self, values: int) -> None:
        """Count values as done."""
        self._done += values
        self._bar.advance(self._task, values)
        if not errors.is_terminal and time.monotonic() > self._printed + LINE_EVERY_S:
            self._printed = time.monotonic()
            self._print()

    def _print(self) -> None:
        took = time.monotonic() - self._begun
        errors.print(f"{self._what}: {self._done:,} of {self._total:,} in {took:.0f} s", style="dim", soft_wrap=True)
