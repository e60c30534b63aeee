"""The refusal to start: one line for what the operator can correct."""

from __future__ import annotations

from typing import IO, Any

import click


class CannotServe(click.ClickException):
    """BentoML's command line shows it as one line and ends with the exit code of our other commands."""

    exit_code = 2  # mla_serve.console.USAGE, which would import the parser of flags in every worker

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"error: {self.message}", file, err=True)
