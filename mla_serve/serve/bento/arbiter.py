"""BentoML's main process: it restarts dead workers at once, refuses to start in one line, and answers until its end.

Changes: `bentoml._internal.utils.circus.Arbiter`, BentoML's subclass of circus's Arbiter, is replaced by a subclass.
Why: BentoML looks for dead workers every 10 s, and in a container not at all: it leaves that to Kubernetes, which acts when
the container's first process ends, and one dead worker of several does not end it. A port that is taken ends in a
traceback. While the service ends, the listening socket stays open without anybody who accepts: clients hang, then
are reset.
Public way that is missing: BentoML has no setting for the delay, for restarts, or for what happens at the start and the end.
Seen to work with BentoML 1.4.39 and 1.4.40, circus 0.19.
Check: an arbiter of this class tells the workers so, in their environment, when it is made.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

from mla_serve.serve.bento import patches
from mla_serve.serve.bento.cannot_serve import CannotServe
from mla_serve.serve.bento.drain import refuse_new_connections

CHECK_S = 1.0  # between two looks for dead workers
BIND_FAILED = "Could not bind"  # circus logs it before it raises, and CannotServe gives the reason
REASONS = {
    errno.EADDRINUSE: "something listens there already; stop it, or choose another with --port (make: PORT=)",
    errno.EACCES: "this user may not listen there; choose a port from 1024 on with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another with --host, such as 127.0.0.1 or 0.0.0.0",
}


def apply(drain_s: float) -> None:
    """Let BentoML use our arbiter.

    Args: drain_s, how long workers still accept connections after SIGTERM; later ones get 503 from the main process.
    """
    try:
        from bentoml._internal.utils import circus

        arbiter = _arbiter_class(circus.Arbiter, drain_s)
    except (ImportError, AttributeError, TypeError):
        return  # nobody will report that it is in force
    setattr(circus, "Arbiter", arbiter)  # noqa: B010 - mypy knows the class by this name


def _arbiter_class(base: Any, drain_s: float) -> type:
    class Arbiter(base):  # type: ignore[misc]  # its base is Any
        def __init__(self, watchers: Any, *args: Any, **named: Any) -> None:
            super().__init__(watchers, *args, **{**named, "check_delay": CHECK_S})
            self.stop_refusing: list[Callable[[], None]] = []
            logging.getLogger("circus").addFilter(lambda record: not record.getMessage().startswith(BIND_FAILED))
            patches.report("arbiter", active=True)
            for watcher in watchers:
                watcher.respawn = True
                patches.hand_on(watcher.env)

        def start(self, *args: Any, **named: Any) -> None:
            try:
                super().start(*args, **named)
            except (OSError, OverflowError) as error:
                self.exit_stack.close()
                raise CannotServe(_reason(error, self.sockets.values())) from None

        def stop(self) -> Any:
            encrypted = any("--ssl-certfile" in (watcher.args or ()) for watcher in self.watchers)
            if not encrypted and not self.stop_refusing:
                self.stop_refusing = [refuse_new_connections(sock, drain_s) for sock in self.sockets.values()]
            return super().stop()

        def stop_controller_and_close_sockets(self) -> None:
            for stop_refusing in self.stop_refusing:
                stop_refusing()
            super().stop_controller_and_close_sockets()

    return Arbiter


def _reason(error: OSError | OverflowError, sockets: Any) -> str:
    """Explain why the service cannot listen."""
    where = ", ".join(f"{each.host}:{each.port}" for each in sockets)
    reason = REASONS.get(getattr(error, "errno", None) or 0, f"{error}; choose another with --host or --port")
    return f"cannot listen on {where}: {reason}"
