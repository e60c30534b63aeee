"""The id of each request, in every log line, problem and answer that belong to it; and the access log.

A caller's X-Request-ID is used if it is short and plain, so that it is safe in a log line; otherwise a new one is made.
"""

from __future__ import annotations

import contextvars
import logging
import random
import re
import time
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.serve.metrics import metrics_buffer

HEADER = b"x-request-id"
PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
NOT_LOGGED = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
REQUEST_ID: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)

access = logging.getLogger("mla_serve.access")


class RequestIdMiddleware:
    """Give each request an id, measure its time and status, and write the access log if there is one."""

    def __init__(self, app: ASGIApp, name: Callable[[str], str], log: bool) -> None:
        """Wrap an application.

        Args: name, returns what the log and the metrics write for a path; log, whether to write an access log.
        """
        self.app = app
        self.name = name
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id in REQUEST_ID, and add the id to the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = id_of(scope["headers"])
        header = (HEADER, request_id.encode())
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        token, start = REQUEST_ID.set(request_id), time.perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if scope["path"] not in NOT_LOGGED:
                seconds = time.perf_counter() - start
                metrics_buffer().add_request(self.name(scope["path"]), status, seconds)
                if self.log:
                    self._write(scope, status, seconds)
            REQUEST_ID.reset(token)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        """Write a line, without anything from the URL's options or the body. Status 0: the client left before the answer."""
        facts = {
            "method": scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other",
            "path": self.name(scope["path"]),
            "status": status,
            "milliseconds": round(1000 * seconds, 2),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        access.info("%s %s %d in %s ms from %s, request %s", *facts.values(), REQUEST_ID.get(), extra={"facts": facts})


def id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the X-Request-ID of a request if it is short and plain, else a new id."""
    given = next((value for name, value in headers if name == HEADER), b"")
    return given.decode() if PLAIN.fullmatch(given) else f"{random.getrandbits(128):032x}"
