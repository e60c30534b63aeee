"""`mla-serve`: list the commands, or run one of them. `python -m mla_serve` is the same."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from mla_serve import __version__
from mla_serve.console import COMPLETION, command_line, console, errors
from mla_serve.console import main as run_command


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: what it does in one line, the name of the dataclass of its flags, the extra that it needs."""

    does: str
    config: str
    needs: str | None = None

    def load(self, name: str) -> tuple[Any, Any]:
        """Import `run` and the dataclass of the flags from commands/NAME.py."""
        module = importlib.import_module(f"mla_serve.commands.{name}")
        return module.run, getattr(module, self.config)


COMMANDS = {
    "predict": Command("answer one sample, or a whole table, without a server", "PredictConfig"),
    "evaluate": Command("measure a bundle on a labelled table", "EvaluateConfig"),
    "train": Command("train on a table and export a bundle", "TrainFlags", needs="train"),
    "cache": Command("list and remove what training keeps on disk to use it again", "CacheConfig", needs="train"),
    "export": Command("turn a finished run into a bundle", "ExportConfig", needs="train"),
    "recalibrate": Command("fit a bundle to new labelled rows; its graphs stay", "RecalibrateConfig", needs="train"),
    "serve": Command("answer requests over HTTP with a bundle", "ServeConfig", needs="serve"),
    "tune": Command("find the fastest settings for a bundle on this machine", "TuneConfig", needs="serve"),
    "ask": Command("answer one sample through a running service", "AskConfig", needs="client"),
}
HELP = ("-h", "--help", "help")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names, or list the commands."""
    args = list(sys.argv[1:] if args is None else args)
    name = args[0] if args else "help"
    if name in HELP:
        _list_commands()
    elif name == "--version":
        print(__version__)
    elif name == COMPLETION:
        _print_completion(args)
    elif name in COMMANDS:
        command = COMMANDS[name]
        run_command(*command.load(name), command.needs, args[1:], command_line(name))
    else:
        similar = difflib.get_close_matches(name, COMMANDS, 1)
        advice = f"did you mean {similar[0]}?" if similar else f"commands are {', '.join(COMMANDS)}"
        errors.print(f"error: {name}: no such command; {advice}", style="bold red", highlight=False, soft_wrap=True)
        sys.exit(2)


def _list_commands() -> None:
    console.print(Text.assemble("usage: ", (f"{command_line()} COMMAND [--help] ...", "bold")), "")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, command in COMMANDS.items():
        table.add_row(Text(f"  {name}", "bold cyan"), command.does)
    console.print(table)
    console.print(Text(f"\nCOMMAND --help lists its flags; {COMPLETION} bash|zsh prints a completion script.", "dim"))


def _print_completion(args: Sequence[str]) -> None:
    """Print a shell completion script for `mla-serve` with every command and flag."""
    import tyro  # here, because listing the commands does not need it

    functions = {}
    for name, command in COMMANDS.items():
        _, functions[name] = command.load(name)
    markers = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    tyro.extras.subcommand_cli_from_dict(functions, prog="mla-serve", args=list(args), config=markers)


if __name__ == "__main__":
    main()
