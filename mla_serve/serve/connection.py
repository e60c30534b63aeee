"""What a connection may cost before there is a request: uvicorn's HTTP protocol with limits on the head and on idling.

uvicorn and the parser below it bound neither the length of a head nor the time that it takes, and close no connection
that never sends anything. BentoML passes no protocol on, so `install` puts this one where uvicorn looks for its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
import uvicorn.config
from bentoml._internal.context import server_context
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mla_serve.serve import dealing
from mla_serve.serve.dealing import Table
from mla_serve.serve.problems import (
    MEDIA_TYPE,
    HeadTooLarge,
    HeadTooSlow,
    MalformedRequest,
    UrlTooLong,
    to_problem,
)
from mla_serve.serve.settings import Settings

OTHER_FILES = 200  # of a worker, beside its connections


class Crowd:
    """The connections of one worker, and which of them wait for a request, the longest first."""

    def __init__(self, most: int, table: Table | None = None) -> None:
        """Start with none; the table, if there is one, is kept up to date."""
        self.most = most
        self.count = 0
        self.idle: dict[Connection, None] = {}
        self._table = table

    def add(self) -> None:
        """Count one more, and close the one that has idled longest when there are too many."""
        self._change(1)
        if self.count > self.most and self.idle:
            next(iter(self.idle)).transport.close()

    def remove(self, connection: Connection) -> None:
        """Count one less."""
        self._change(-1)
        self.idle.pop(connection, None)

    def leave(self) -> None:
        """Want no more: this worker is on its way out, and having few shall not bring it new ones."""
        if self._table is not None:
            self._table.leave()

    def _change(self, by: int) -> None:
        self.count += by
        if self._table is not None:
            self._table.tell(self.count)


class Connection(HttpToolsProtocol):
    """One connection: its heads are short, and come in time."""

    def __init__(self, *args: Any, settings: Settings, crowd: Crowd, **kwargs: Any) -> None:
        """Take what uvicorn gives, and the operator's limits."""
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._crowd = crowd
        self._head_bytes = 0
        self._in_head = True
        self._refusal: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a head."""
        super().connection_made(transport)
        self._wait_for_head()
        self._crowd.add()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._crowd.remove(self)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as the head does not grow too long."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(HeadTooLarge(f"more than {self._settings.max_header_bytes:,} bytes of headers"))

    def on_message_begin(self) -> None:
        """Start to read a head."""
        self._in_head = True
        self._wait_for_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Refuse a head that is too long; an exception makes the parser stop and uvicorn send `send_400_response`."""
        self._in_head = False
        self._head_bytes = 0
        self._crowd.idle.pop(self, None)
        self._stop_timer()
        self._refusal = self._fault()
        if self._refusal is not None:
            raise self._refusal
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._crowd.idle[self] = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer with the problem, and close."""
        if not self.transport.is_closing():
            self._refuse(self._refusal or MalformedRequest("request", "this is no HTTP/1.1 request"))

    def _should_upgrade_to_ws(self) -> bool:
        """Know no websockets: nothing here speaks them, and they would leave these limits behind."""
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: a client could fill the log with it."""

    def _fault(self) -> Exception | None:
        limits = self._settings
        if len(self.url) > limits.max_url_bytes:
            return UrlTooLong(f"{len(self.url):,} bytes; at most {limits.max_url_bytes:,} are read")
        if len(self.headers) > limits.max_headers:
            return HeadTooLarge(f"{len(self.headers)} headers; at most {limits.max_headers} are read")
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > limits.max_header_bytes:
            return HeadTooLarge(f"{size:,} bytes of headers; at most {limits.max_header_bytes:,} are read")
        return None

    def _refuse(self, error: Exception) -> None:
        problem = to_problem(error)
        body = orjson.dumps(problem.to_dict())
        status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write((status + head).encode() + body)
        self.transport.close()

    def _wait_for_head(self) -> None:
        self._crowd.idle[self] = None
        if self._timer is None:
            self._timer = self.loop.call_later(self._settings.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._head_bytes and not self.transport.is_closing():
            self._refuse(HeadTooSlow(f"the headers took longer than {self._settings.header_timeout_s:g} s"))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def install(settings: Settings) -> Crowd:
    """Make every uvicorn server of this process use Connection, and allow it as many files as the machine does.

    Returns: their connections.
    """
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    table = Table(Path(folder) / "connections", server_context.worker_index or 0) if folder else None
    crowd = Crowd(max(1, min(settings.max_connections, files - OTHER_FILES)), table)
    if table is not None and settings.processes > 1:
        dealing.install(crowd, table)
    protocol = functools.partial(Connection, settings=settings, crowd=crowd)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = protocol  # type: ignore[assignment]
    return crowd
