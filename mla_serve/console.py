"""What all commands share: flags from a dataclass, errors in one line, exit codes, hints on what to install.

Exit codes: 0 success; 1 a bug of this package; 2 an error that the caller can correct; 130 interrupted by Ctrl-C;
141 the reader of standard output closed it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import tyro
from rich.console import Console, ConsoleDimensions

from mla_serve.errors import ConfigError, MlaServeError

EXTRAS = {  # extra -> packages of it that are looked for
    "train": ("torch", "onnx", "onnxscript", "scipy"),
    "serve": ("bentoml", "fastapi"),
    "client": ("httpx",),
    "bulk": ("pyarrow",),
    "ray": ("ray", "pyarrow"),
    "tensorboard": ("tensorboard",),
    "hf": ("transformers", "peft"),
}
BUG = 1
SILENT_S = 10.0
USAGE = 2  # exit code of every error that the caller can correct
INTERRUPTED = 130
BROKEN_PIPE = 141
DEFAULT_WIDTH = 120  # columns of a console whose width is not known
COMPLETION = "--tyro-print-completion"
HELP_INDENT = " " * 8  # what tyro writes before the description of a flag
SOURCE_FOLDER = Path(__file__).parents[1]


class WideConsole(Console):
    """A console with DEFAULT_WIDTH columns without a terminal and without COLUMNS, so that piped tables keep their columns."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and rows."""
        size = super().size
        return size if self.is_terminal or "COLUMNS" in os.environ else ConsoleDimensions(DEFAULT_WIDTH, size.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new


# No markup and no emoji names: the printed text contains names and words of the user, which may look like either.
console = WideConsole(markup=False, emoji=False)
errors = WideConsole(stderr=True, markup=False, emoji=False)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class CommonFlags:
    """The flags of every command."""

    debug: bool = dataclasses.field(default=False, kw_only=True)
    """Show the traceback of an error."""


def main(
    command: Callable[[T], None],
    config: Callable[..., T],
    needs: str | None = None,
    args: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Parse the flags, run a command, and end the process with one line and an exit code when it fails.

    Args: config, the frozen dataclass of the flags; needs, an extra that the command requires; args, by default those of
    the process; prog, the name of the command in its usage line.
    """
    args = sys.argv[1:] if args is None else args
    prog = prog or _started_as()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        parsed = parse(config, args, prog)
    except ConfigError as error:
        _fail(str(error), USAGE, silent=_is_secondary_process())
    except BrokenPipeError:  # while --help is printed
        _end_without_reader()
    try:
        if needs:
            require_extra(needs)
        command(parsed)
        sys.stdout.flush()
    except MlaServeError as error:
        _fail(str(error), USAGE)
    except KeyboardInterrupt:
        errors.print(f"interrupted{_resume_hint(parsed, args, prog)}", style="yellow", soft_wrap=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _end_without_reader()
    except Exception as error:
        if not isinstance(error, OSError) or error.errno is None:
            _fail(f"{type(error).__name__}: {error} (a bug of mla_serve; --debug shows where)", BUG)
        if error.filename is None:
            _discard_output()
        where = error.filename or "standard output, or a file"
        _fail(f"{where}: {error.strerror}; make room there, or choose a place that can be used", USAGE)


def _end_without_reader() -> NoReturn:
    """End the process silently, because nobody reads its output any more."""
    _discard_output()
    sys.exit(BROKEN_PIPE)


def _discard_output() -> None:
    """Redirect standard output to nowhere. Otherwise Python fails again when it flushes the buffer at exit."""
    with contextlib.suppress(io.UnsupportedOperation):  # standard output is not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _resume_hint(parsed: object, args: Sequence[str], prog: str) -> str:
    """Write the command that continues an interrupted one; empty for commands that cannot be continued.

    The dataclass of such a command has `resume_flags`: the flags to add to those that were given.
    """
    added: tuple[str, ...] | None = getattr(parsed, "resume_flags", None)
    if added is None:
        return ""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"; to continue: the same torchrun command with {' '.join(added)}"
    return f"; to continue: {prog} {shlex.join([*args, *(flag for flag in added if flag not in args)])}"


def parse(config: Callable[..., T], args: Sequence[str], prog: str) -> T:
    """Parse flags into their dataclass. --help and the completion flag print their text and end the process.

    Raises: ConfigError, in one line, for flags that are unknown, missing or of a wrong type.
    """
    cls: Any = config
    extended = dataclasses.make_dataclass(cls.__name__, [], bases=(cls, CommonFlags), frozen=True)
    extended.__doc__ = cls.__doc__
    markers = [tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff]
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            parsed: Any = tyro.cli(extended, prog=prog, args=args, config=markers)
    except SystemExit as end:
        if end.code == USAGE:
            raise ConfigError(_one_line(message.getvalue())) from None
        raise
    return cast(T, cls(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(cls)}))


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises: ConfigError with the command that installs them.
    """
    missing = [package for package in EXTRAS[extra] if importlib.util.find_spec(package) is None]
    if missing:
        extras = extra if extra == "client" else f"cpu,{extra}"
        other = "" if extra == "client" else f" (or [gpu,{extra}])"
        raise ConfigError(f"{', '.join(missing)} not installed; run: {install_command(extras)}{other}")


def in_clone(folder: Path = SOURCE_FOLDER) -> bool:
    """Return whether the package is imported from a clone of its repository: constraints.txt lies beside it."""
    return (folder / "constraints.txt").is_file() and (folder / "pyproject.toml").is_file()


def install_command(extras: str, folder: Path = SOURCE_FOLDER) -> str:
    """Write the pip command that installs extras: in a clone with its pinned versions, else for the installed package."""
    return (
        f"pip install -c constraints.txt -e '.[{extras}]'" if in_clone(folder) else f"pip install 'mla_serve[{extras}]'"
    )


def command_line(*args: str) -> str:
    """Write a command of this package as its user types it."""
    return shlex.join(["mla-serve", *args])


def _started_as() -> str:
    """Return how a script or module that is no command of `mla-serve` was started, for its usage line."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else os.path.basename(sys.argv[0])  # noqa: PTH119


def _one_line(box: str) -> str:
    """Take tyro's message out of its frame and join its lines: what is wrong, a similar flag, where to read more."""
    lines = [line.removeprefix("│ ").rstrip(" │") for line in box.splitlines()]
    kept = [line.strip() for line in lines if line and not line.startswith(("╭", "╰", "──", HELP_INDENT))]
    text = " ".join(kept).replace(" Perhaps you meant:", "; perhaps you meant").replace("Got errors: - ", "")
    return re.sub(r"[ .:]*(For full helptext, (run|see)|Argument helptext:).*", "; --help lists the flags", text)


def _is_secondary_process() -> bool:
    """Return whether torchrun started this process and another one, that of rank 0, prints the errors."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def _fail(message: str, code: int, *, silent: bool = False) -> NoReturn:
    """Print the message in one line, with --debug after the traceback, and end the process."""
    if silent:
        time.sleep(SILENT_S)  # torchrun ends the other processes when one has failed, also before they have printed
        sys.exit(code)
    if "--debug" in sys.argv:
        errors.print_exception()
    errors.print(f"error: {message}", style="bold red", highlight=False, soft_wrap=True)
    sys.exit(code)
