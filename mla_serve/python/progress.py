"""Lines and a progress bar, on a terminal or in a notebook. Everywhere else the lines go to the logger mla_serve alone."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("mla_serve")


def wants_output(verbose: bool | None) -> bool:
    """Return whether to print: as asked, or by default on a terminal and in a notebook."""
    screen = Console(stderr=True)
    return (screen.is_terminal or screen.is_jupyter) if verbose is None else verbose


class Screen:
    """Where fit and predict report: lines through `logging`, and on the screen where somebody looks."""

    def __init__(self, verbose: bool | None = None, reword: Callable[[str], str] = str) -> None:
        """Decide whether to print. Args: verbose, None: only on a terminal and in a notebook; reword, applied to each line."""
        self.reword = reword
        self.shown = wants_output(verbose)
        self.console = Console(stderr=True, markup=False, emoji=False, highlight=False, quiet=not self.shown)

    def say(self, line: str, style: str | None = None) -> None:
        """Log a line, and print it unless a handler of the logger shows it already."""
        line = self.reword(line)
        log.info("%s", line)
        if not (log.hasHandlers() and log.isEnabledFor(logging.INFO)):
            self.console.print(line, style=style, soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, task: str, total: int | None) -> Iterator[Callable[[], None]]:
        """Show a progress bar; yield the function that advances it by one."""
        columns = (TextColumn(task), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        hidden = not self.shown or (self.console.is_jupyter and not importlib.util.find_spec("ipywidgets"))
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as progress:
            added = progress.add_task(task, total=total)
            yield lambda: progress.advance(added)
