"""The HTTP protocol of uvicorn with limits on what comes before there is a request.

Changes: `HttpToolsProtocol` of `uvicorn.protocols.http.httptools_impl` is subclassed; uvicorn_config.py makes uvicorn use it.
Why: uvicorn and its parser limit neither the size of a head nor the time that it takes, keep a connection open that
never sends anything, and lose the body of a request with `Upgrade: h2c`, which Java's HttpClient sends by default.
Public way that is missing: uvicorn has an option for the size of a head with the parser h11 alone. With h11 a request costs a
sixth more processor time in all (measured with models/digits), and slow heads and silent connections stay.
Seen to work with uvicorn 0.54, httptools 0.9.
Check: this module can be imported; that uvicorn uses it is checked by uvicorn_config.py.

What a proxy does better stays with the proxy (deploy/nginx): limits per client, retries, slow readers of long answers.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mla_serve.serve.bento.accept_evenly import ConnectionCounts
from mla_serve.serve.bento.raw_response import refusal
from mla_serve.serve.http.body_limits import LINGER_S
from mla_serve.serve.http.deadline import GIVE_UP
from mla_serve.serve.problems import (
    HeadTooLarge,
    HeadTooSlow,
    MalformedRequest,
    MethodNotAllowed,
    Overloaded,
    UrlTooLong,
)
from mla_serve.serve.settings import Settings

MOST_PIPELINED = 100  # requests of one connection that wait for the answer to an earlier one; each costs some kilobytes
LAST_REQUEST_S = 0.5  # for a request that a client has sent before it can know that the worker ends


class Connection(HttpToolsProtocol):
    """One connection, whose heads have a limited size and must arrive in a limited time.

    An `Upgrade` is ignored, as a server that speaks HTTP/1.1 alone may do. The parser would stop after such a head and take
    the body for another protocol, so the head is parsed a second time without that header.
    """

    def __init__(
        self, *args: Any, settings: Settings, most: int, counts: ConnectionCounts | None, **kwargs: Any
    ) -> None:
        """Take uvicorn's arguments, the operator's limits, the largest number of connections, and where to count them."""
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._most = most
        self._counts = counts
        self._head_bytes = 0
        self._in_head = False
        self._in_body = False
        self._upgrades = False
        self._boundaries = 0  # heads and messages that have ended
        self._fault: Exception | None = None
        self._refused = False  # from then on nothing is read
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head. If there are too many connections, close the one that has waited longest for a request."""
        super().connection_made(transport)
        _close_when_nothing_is_read(transport, self._settings.header_timeout_s)
        self._count()
        if len(self.connections) > self._most:
            self._close_longest_idle()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and drop the requests that wait: nobody would read their answers."""
        self._stop_timer()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._count()

    def data_received(self, data: bytes) -> None:
        """Parse the data, as long as the head is not too large."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        boundaries = self._boundaries
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(self._fault or MalformedRequest("request", "this is no HTTP/1.1 request"))
            return
        if self._in_head and boundaries == self._boundaries:  # otherwise some of the data belongs to what came before
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.max_header_bytes:
                self._refuse(HeadTooLarge(f"more than {self._settings.max_header_bytes:,} bytes of headers"))
                return
        if self._is_idle():
            self._start_timer()  # the data has ended the time for which uvicorn keeps an idle connection

    def on_message_begin(self) -> None:
        """Start to read a head."""
        self._in_head = True
        self._start_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the head; an exception makes the parser stop."""
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
        give_up: dict[object, object] = {}
        self.scope["extensions"] = {GIVE_UP: give_up}
        super().on_headers_complete()
        give_up["call"] = functools.partial(self._give_up, self.cycle)
        self._in_body = True

    def on_message_complete(self) -> None:
        """Expect another request."""
        if self._upgrades:
            return
        self._in_body = False
        self._boundaries += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit the time of a head that has begun to arrive meanwhile."""
        super().on_response_complete()
        if self._in_head and self._is_idle():
            self._start_timer()

    def shutdown(self) -> None:
        """End when uvicorn stops: a request that is already on its way is the last one that is answered."""
        if self._is_idle() and not self._refused:
            self.loop.call_later(LAST_REQUEST_S, super().shutdown)
        else:
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

    def _count(self) -> None:
        if self._counts is not None:
            self._counts.set(len(self.connections))

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, error: Exception) -> None:
        """Read no more. Answer with the problem, but never before the answer to an earlier request.

        If an earlier request is being answered, the connection is closed after its answer, and the problem is not sent.
        """
        self._stop_timer()
        self._refused = True
        answer = refusal(error, self.headers or [])
        if self._in_body and (self.pipeline or self.cycle.response_started):
            self.transport.close()
        elif self._in_body or self._is_idle():
            self._send_last(answer)
        else:
            self.cycle.keep_alive = False

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """End the connection of a client that reads its answer too slowly; uvicorn logs no error of this request then."""
        cycle.disconnected = True
        self.transport.abort()

    def _send_last(self, answer: bytes) -> None:
        """Send an answer, and ignore what still arrives: a client that is sending would be reset before it has read why."""
        if self._in_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unset_keepalive_if_required()
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._settings.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._timer = None
        if not self._is_idle():
            return  # the time of this head begins again after the answer to the request before it
        if self._in_head:
            self._refuse(HeadTooSlow(f"the headers took longer than {self._settings.header_timeout_s:g} s"))
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_longest_idle(self) -> None:
        """Close the connection that has been idle longest; all others have begun a request."""
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        idle = [each for each in others if each._is_idle() and not each.transport.is_closing()]
        if idle:
            min(idle, key=Connection._waiting_since).transport.close()

    def _waiting_since(self) -> float:
        """Return when this idle connection began to wait, in seconds of the loop's clock."""
        if self._timer is not None:
            return self._timer.when() - self._settings.header_timeout_s
        return self.timeout_keep_alive_task.when() - self.timeout_keep_alive if self.timeout_keep_alive_task else 0.0


def protocol(settings: Settings, most: int, counts: ConnectionCounts | None = None) -> functools.partial[Connection]:
    """Return what uvicorn calls for each connection.

    Args: most, connections of this worker; counts, is told their number.
    """
    return functools.partial(Connection, settings=settings, most=most, counts=counts)


def _close_when_nothing_is_read(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel close a connection whose client reads nothing of its answer, which transport.close() waits for."""
    sock = transport.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT") and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(1000 * seconds)))
