"""What all commands share: flags from a dataclass, errors in one line, exit codes, a missing extra named.

Exit codes: 0 done; 1 a bug of this package; 2 what the caller can mend; 130 interrupted; 141 the reader of a pipe left.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import tyro
from rich.console import Console, ConsoleDimensions

from mla_serve.errors import ConfigError, MlaServeError

EXTRAS = {
    "train": ("torch", "onnx", "onnxscript", "scipy"),
    "serve": ("bentoml", "fastapi"),
    "client": ("httpx",),
    "bulk": ("pyarrow",),
    "ray": ("ray", "pyarrow"),
    "hf": ("transformers", "peft"),
}
BUG = 1
USAGE = 2  # exit code of every error that the caller can mend
INTERRUPTED = 130
BROKEN_PIPE = 141
PIPE_WIDTH = 120  # columns, where nobody says how wide the screen is
SCRIPT = "mla-serve"  # the command that comes with the installed package
COMPLETION = "--tyro-print-completion"
HELP_INDENT = " " * 8  # tyro indents the descriptions of flags by so much


class PipeConsole(Console):
    """A console that is PIPE_WIDTH wide where there is neither a terminal nor COLUMNS: tables keep their columns."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and rows."""
        size = super().size
        return size if self.is_terminal or "COLUMNS" in os.environ else ConsoleDimensions(PIPE_WIDTH, size.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new


# What is printed holds names and words of the user, which may look like markup or the name of an emoji.
console = PipeConsole(markup=False, emoji=False)
errors = PipeConsole(stderr=True, markup=False, emoji=False)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Common:
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
    """Read the flags, run a command, and turn what the caller can mend into one line and exit code 2.

    Args: config, a frozen dataclass; needs, the extra that the command cannot do without; args, those of the process
    when left out; prog, what the caller typed to get here.
    """
    args = sys.argv[1:] if args is None else args
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        parsed = parse(config, args, prog or _program())
    except ConfigError as error:
        _fail(str(error), USAGE, silent=_is_copy())
    try:
        if needs:
            require_extra(needs)
        command(parsed)
        sys.stdout.flush()
    except MlaServeError as error:
        _fail(str(error), USAGE)
    except KeyboardInterrupt:
        errors.print(f"interrupted{_to_go_on(parsed, args, prog or _program())}", style="yellow", soft_wrap=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if not isinstance(error, OSError) or error.errno is None:
            _fail(f"{type(error).__name__}: {error} (a bug of mla_serve; --debug shows where)", BUG)
        if error.filename is None:
            _drop_output()
        where = error.filename or "standard output, or a file"
        _fail(f"{where}: {error.strerror}; make room there, or choose a place that can be used", USAGE)


def _drop_output() -> None:
    """Send what was not printed yet to nowhere, or Python complains when it flushes at exit."""
    with contextlib.suppress(io.UnsupportedOperation):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _to_go_on(parsed: object, args: Sequence[str], prog: str) -> str:
    """Say how an interrupted command goes on, where it can: its dataclass names what is to be added to the same flags."""
    more: tuple[str, ...] | None = getattr(parsed, "goes_on_with", None)
    if more is None:
        return ""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"; to go on: the same torchrun command with {' '.join(more)}"
    return f"; to go on: {prog} {shlex.join([*args, *(flag for flag in more if flag not in args)])}"


def parse(config: Callable[..., T], args: Sequence[str], prog: str) -> T:
    """Turn flags into the dataclass that they were generated from. Help and completion are printed and end the process.

    Raises: ConfigError, in one line, for flags that do not fit.
    """
    cls: Any = config
    extended = dataclasses.make_dataclass(cls.__name__, [], bases=(cls, Common), frozen=True)
    extended.__doc__ = cls.__doc__
    markers = [tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed: Any = tyro.cli(extended, prog=prog, args=args, config=markers)
    except SystemExit as end:
        if end.code == USAGE:
            raise ConfigError(_one_line(complaint.getvalue())) from None
        raise
    return cast(T, cls(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(cls)}))


def require_extra(extra: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises: ConfigError, naming the command that installs them.
    """
    missing = [package for package in EXTRAS[extra] if importlib.util.find_spec(package) is None]
    if missing:
        extras = extra if extra == "client" else f"cpu,{extra}"
        other = "" if extra == "client" else f" (or [gpu,{extra}])"
        raise ConfigError(
            f"{', '.join(missing)} not installed; run: pip install -c constraints.txt -e '.[{extras}]'{other}"
        )


def command_line(*args: str) -> str:
    """Write a command that can be typed where this process was started, from a clone or with the package installed."""
    installed = Path(sys.argv[0]).name == SCRIPT
    return shlex.join([*([SCRIPT] if installed else ["python", "-m", "mla_serve"]), *args])


def _program() -> str:
    """Say how this process was started, for usage lines: `mla-serve predict`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else os.path.basename(sys.argv[0])  # noqa: PTH119


def _one_line(box: str) -> str:
    """Take tyro's complaint out of its frame: what is wrong, the flag that may have been meant, where to read more."""
    lines = [line.removeprefix("│ ").rstrip(" │") for line in box.splitlines()]
    told = [line.strip() for line in lines if line and not line.startswith(("╭", "╰", "──", HELP_INDENT))]
    text = " ".join(told).replace(" Perhaps you meant:", "; perhaps you meant").replace("Got errors: - ", "")
    return re.sub(r"[ .:]*(For full helptext, (run|see)|Argument helptext:).*", "; --help lists the flags", text)


def _is_copy() -> bool:
    """Whether torchrun started several of this process, and another one speaks for them all."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def _fail(message: str, code: int, *, silent: bool = False) -> NoReturn:
    """Write one line, or with --debug the traceback before it, and end."""
    if silent:
        sys.exit(code)
    if "--debug" in sys.argv:
        errors.print_exception()
    errors.print(f"error: {message}", style="bold red", highlight=False, soft_wrap=True)
    sys.exit(code)
