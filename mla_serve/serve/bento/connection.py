"""What a connection may cost before there is a request: uvicorn's HTTP protocol with limits on the head and on idling.

uvicorn and the parser below it bound neither the length of a head nor the time that it takes, and close no connection
that never sends anything. BentoML passes no protocol on, so `install` puts this one where uvicorn looks for its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import resource
import socket
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httptools
import orjson
import uvicorn.config
from bentoml._internal.context import server_context
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mla_serve.serve.bento import dealing
from mla_serve.serve.bento.dealing import Table
from mla_serve.serve.http.body_limits import GIVE_UP, LINGER_S
from mla_serve.serve.http.guard import HEADERS as SECURITY_HEADERS
from mla_serve.serve.metrics import tally
from mla_serve.serve.problems import (
    ADVICE,
    MEDIA_TYPE,
    HeadTooLarge,
    HeadTooSlow,
    MalformedRequest,
    MethodNotAllowed,
    Overloaded,
    Problem,
    Unavailable,
    UrlTooLong,
    to_problem,
)
from mla_serve.serve.request_id import HEADER, id_of
from mla_serve.serve.settings import Settings

OTHER_FILES = 200  # of a worker, beside its connections
MOST_PIPELINED = 100  # requests of one connection that wait for the one before: each costs some kilobytes
LAST_REQUEST_S = 0.5  # for what a client has sent on an idle connection before it can know that the worker ends
ENDING = "the service is ending; send it again, to another instance or a little later"
NO_ENDPOINT = "none"  # where metrics name the path


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
    """One connection: its heads are short, and come in time; what is refused is answered after what came before it.

    An `Upgrade` is ignored, as a server may that speaks HTTP/1.1 alone: the parser would take everything after such a
    head for another protocol and lose the body, so the head is parsed a second time without that header.
    """

    def __init__(self, *args: Any, settings: Settings, crowd: Crowd, **kwargs: Any) -> None:
        """Take what uvicorn gives, and the operator's limits."""
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._crowd = crowd
        self._head_bytes = 0
        self._in_head = False
        self._in_body = False
        self._upgrades = False
        self._boundaries = 0  # heads and messages that have ended
        self._fault: Exception | None = None
        self._answering: RequestResponseCycle | None = (
            None  # uvicorn's own `cycle` is the newest, which may have to wait
        )
        self._refusal: bytes | None = None  # once there is one, nothing more is read
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a head."""
        super().connection_made(transport)
        _close_when_nothing_is_taken(transport, self._settings.header_timeout_s)
        self._wait_for_head()
        self._crowd.add()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._crowd.remove(self)
        self._stop_timer()
        self._disconnect()
        self.pipeline.clear()  # they will not be answered, and hold what was sent
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as the head does not grow too long."""
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        boundaries = self._boundaries
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(self._fault or MalformedRequest("request", "this is no HTTP/1.1 request"))
            return
        if self._in_head and boundaries == self._boundaries:  # else it is not known how much of it belongs to the head
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(HeadTooLarge(f"more than {self._settings.max_header_bytes:,} bytes of headers"))
                return
        if self._is_idle():
            self._wait_for_head()  # whatever came has ended the time for which uvicorn keeps a connection

    def on_message_begin(self) -> None:
        """Start to read a head."""
        self._in_head = True
        self._wait_for_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Refuse a head that is too long; an exception makes the parser stop."""
        self._in_head = False
        self._head_bytes = 0
        self._boundaries += 1
        self._stop_timer()
        self._fault = self._find_fault()
        if self._fault is not None:
            raise self._fault
        if self.parser.should_upgrade():
            self._upgrades = True
            return
        self.scope["extensions"] = {GIVE_UP: {"call": self._give_up}}
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle
        self._in_body = True
        self._crowd.idle.pop(self, None)

    def on_message_complete(self) -> None:
        """Note that the next byte begins another request."""
        if self._upgrades:
            return
        self._in_body = False
        self._boundaries += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or refuse what came after the last one that could be read."""
        is_last = not self.pipeline
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if is_last and self._refusal is not None:
            self._send_refusal()
        elif self._is_idle():
            self._crowd.idle[self] = None

    def shutdown(self) -> None:
        """End soon, when uvicorn stops: a request that is on its way is answered, and the last one on this connection."""
        if self._is_idle() and self._refusal is None:
            self.loop.call_later(LAST_REQUEST_S, self._end)
        else:
            super().shutdown()

    def _end(self) -> None:
        if self._in_head and self._refusal is None:
            self._refuse(Unavailable(ENDING))
        elif not self._in_head:
            super().shutdown()

    def _parse(self, data: bytes) -> None:
        """Feed the parser. Raises: httptools.HttpParserError."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self._upgrades = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def _head_without_upgrade(self) -> bytes:
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join((first, *kept, b"\r\n"))

    def _find_fault(self) -> Exception | None:
        limits = self._settings
        if self.parser.get_method() == b"CONNECT":
            return MethodNotAllowed("CONNECT was sent; this is no proxy")
        if self.parser.get_http_version() not in ("0.9", "1.0", "1.1"):
            return MalformedRequest("request", "this is no HTTP/1.1 request")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            return MalformedRequest("transfer-encoding", "only chunked is read; send the body without other codings")
        if len(self.url) > limits.max_url_bytes:
            return UrlTooLong(f"{len(self.url):,} bytes; at most {limits.max_url_bytes:,} are read")
        if len(self.headers) > limits.max_headers:
            return HeadTooLarge(f"{len(self.headers)} headers; at most {limits.max_headers} are read")
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > limits.max_header_bytes:
            return HeadTooLarge(f"{size:,} bytes of headers; at most {limits.max_header_bytes:,} are read")
        if len(self.pipeline) >= MOST_PIPELINED:
            return Overloaded(f"more than {MOST_PIPELINED} requests at once on one connection; wait for answers")
        return None

    def _is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, error: Exception) -> None:
        """Read no more, and answer with the problem once everything before it has been answered."""
        self._stop_timer()
        self._refusal = _refusal(error, self.headers or [])
        if self._in_body and self._drop_unfinished():
            self.transport.close()
        elif not self.pipeline and (self._in_body or self._is_idle()):
            self._send_refusal()

    def _drop_unfinished(self) -> bool:
        """Give up the request whose body is no body; returns whether its answer has begun already."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
            self._in_body = False
            return False
        started = self.cycle.response_started
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return started

    def _give_up(self) -> None:
        """End the connection of a client that takes an answer too slowly."""
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Let what is being answered, and what waits, write nothing more: uvicorn tells only the newest request."""
        for cycle in (self._answering, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _send_refusal(self) -> None:
        """Answer, and read for a while what still comes: a client that is sending would be reset before it has read why."""
        if self.transport.is_closing() or self._refusal is None:
            return
        self._unset_keepalive_if_required()
        self._crowd.idle[self] = None
        self.transport.write(self._refusal)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _wait_for_head(self) -> None:
        if self._is_idle():
            self._crowd.idle[self] = None
        if self._timer is None:
            self._timer = self.loop.call_later(self._settings.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._in_head:
            self._refuse(HeadTooSlow(f"the headers took longer than {self._settings.header_timeout_s:g} s"))
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def whole_answer(problem: Problem) -> bytes:
    """Write the answer to what never becomes a request of the application, to be followed by the connection's end."""
    body = orjson.dumps(problem.to_dict())
    fields = {
        b"content-type": MEDIA_TYPE.encode(),
        b"content-length": b"%d" % len(body),
        b"connection": b"close",
        HEADER: (problem.request_id or "").encode(),
        **dict(SECURITY_HEADERS),
        **{name.lower().encode(): value.encode() for name, value in ADVICE.get(problem.status, {}).items()},
    }
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join((status, *(b"%b: %b\r\n" % field for field in fields.items()), b"\r\n", body))


def _refusal(error: Exception, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write an answer, and count it."""
    problem = dataclasses.replace(to_problem(error), request_id=id_of(headers))
    tally().ended(NO_ENDPOINT, problem.status, 0.0)
    return whole_answer(problem)


def _close_when_nothing_is_taken(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel give a connection up whose client takes nothing of its answer: no close would ever end it."""
    sock = transport.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT") and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(1000 * seconds)))


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
