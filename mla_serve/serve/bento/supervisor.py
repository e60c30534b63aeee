"""What the process that starts the workers does otherwise than BentoML: it looks after them, and refuses in one line."""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from mla_serve.serve.bento.drain import refuse_new_connections
from mla_serve.serve.metrics import is_alive

LOOK_S = 1.0  # between looks for dead workers
METRICS = "metrics"  # folder in BENTOML_HOME with one for each service that runs
REPEATED = "Could not bind"  # circus says it, and we say why
REASONS = {
    errno.EADDRINUSE: "something listens there already; stop it, or choose another with --port (make: PORT=)",
    errno.EACCES: "this user may not listen there; choose a port from 1024 on with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another with --host, such as 127.0.0.1 or 0.0.0.0",
}


class CannotServe(click.ClickException):
    """What the operator can mend: BentoML's command line ends with one line and the exit code of the other commands."""

    exit_code = 2  # mla_serve.console.USAGE, without the parser of flags in every worker

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line."""
        click.echo(f"error: {self.message}", file, err=True)


def ask_again_whether_to_report() -> None:
    """Let `bentoml serve`, which looked for BENTOML_DO_NOT_TRACK before it imported this package, look again."""
    with contextlib.suppress(ImportError, AttributeError):
        from bentoml._internal.utils.analytics import usage_stats

        usage_stats.do_not_track.cache_clear()


def keep_metrics_apart() -> None:
    """Give this service a folder of its own for the numbers of its workers: BentoML has one for all services of a user.

    It would be emptied by the next service that starts, and both would show the sum of their numbers.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer

    folder = Path(BentoMLContainer.bentoml_home.get()) / METRICS
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder / str(os.getpid())))


def look_after_workers(drain_s: float) -> None:
    """Let BentoML start a new worker for one that died, refuse in one line to start, and answer until its own end.

    It would look for dead workers every 10 s, and in a container leave it to Kubernetes, which replaces a container when
    its first process ends. One dead worker of several does not bring that about.

    Args: drain_s, how long workers still take requests after SIGTERM; from then on, new connections get 503 from here.
    """
    import bentoml.serving
    from bentoml._internal.utils import circus

    before: Any = circus.Arbiter

    class Arbiter(before):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **{**named, "check_delay": LOOK_S})
            self.refusing: list[Callable[[], None]] = []
            logging.getLogger("circus").addFilter(lambda record: not record.getMessage().startswith(REPEATED))

        def start(self, *given: Any, **named: Any) -> None:
            try:
                super().start(*given, **named)
            except (OSError, OverflowError) as error:
                self.exit_stack.close()
                raise CannotServe(_reason(error, self.sockets.values())) from None

        def stop(self) -> Any:
            encrypted = any("--ssl-certfile" in (watcher.args or ()) for watcher in self.watchers)
            if not encrypted and not self.refusing:
                self.refusing = [refuse_new_connections(sock, drain_s) for sock in self.sockets.values()]
            return super().stop()

        def stop_controller_and_close_sockets(self) -> None:
            for end in self.refusing:
                end()
            super().stop_controller_and_close_sockets()

    bentoml.serving.running_inside_container = lambda: False  # type: ignore[assignment]
    setattr(circus, "Arbiter", Arbiter)  # noqa: B010


def _reason(error: OSError | OverflowError, sockets: Any) -> str:
    """Say why the service cannot listen."""
    where = ", ".join(f"{each.host}:{each.port}" for each in sockets)
    told = REASONS.get(getattr(error, "errno", None) or 0, f"{error}; choose another with --host or --port")
    return f"cannot listen on {where}: {told}"


def clear_metrics() -> None:
    """Remove what services that were killed have left, now; and what this one leaves, when it ends."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    own = Path(BentoMLContainer.prometheus_multiproc_dir.get())
    for folder in own.parent.glob("[0-9]*"):
        if not is_alive(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    atexit.register(shutil.rmtree, own, ignore_errors=True)
