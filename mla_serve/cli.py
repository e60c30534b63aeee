"""What all commands share: flags from a dataclass, errors in one line, a missing extra named."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro
from rich.console import Console

from mla_serve.errors import ConfigError, MlaServeError

EXTRAS = {"train": ("torch", "onnx", "onnxscript", "scipy"), "serve": ("bentoml", "fastapi")}
USAGE = 2  # exit code of every error that the caller can mend

console = Console()
errors = Console(stderr=True)
T = TypeVar("T")


def main(
    command: Callable[[T], None], config: Callable[..., T], needs: str | None = None, args: list[str] | None = None
) -> None:
    """Read the flags, run a command, and turn what the caller can mend into one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        if needs:
            require_extra(needs)
        command(_parse(config, args))
    except MlaServeError as error:
        errors.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        errors.print("interrupted", style="yellow")
        sys.exit(130)


def _parse(config: Callable[..., T], args: list[str] | None) -> T:
    parsed: Any = tyro.cli(config, args=args)
    result: T = parsed
    return result


def require_extra(extra: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises: ConfigError, naming the command that installs them.
    """
    missing = [package for package in EXTRAS[extra] if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} not installed; run: pip install -c constraints.txt -e '.[cpu,{extra}]' (or [gpu,{extra}])"
        )
