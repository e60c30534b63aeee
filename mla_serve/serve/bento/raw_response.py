"""Answers to what never becomes a request of the application, as the bytes of a whole HTTP/1.1 response."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from http import HTTPStatus

import orjson

from mla_serve.serve.http.guard import HEADERS as SECURITY_HEADERS
from mla_serve.serve.metrics import metrics_buffer
from mla_serve.serve.problems import ADVICE_HEADERS, MEDIA_TYPE, Problem, to_problem
from mla_serve.serve.request_id import HEADER, id_of

NO_ENDPOINT = "none"  # in the place of a path in metrics


def problem_bytes(problem: Problem) -> bytes:
    """Write the response for a problem. The connection must be closed after it."""
    body = orjson.dumps(problem.to_dict())
    fields = {
        b"content-type": MEDIA_TYPE.encode(),
        b"content-length": b"%d" % len(body),
        b"connection": b"close",
        HEADER: (problem.request_id or "").encode(),
        **dict(SECURITY_HEADERS),
        **{name.lower().encode(): value.encode() for name, value in ADVICE_HEADERS.get(problem.status, {}).items()},
    }
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join((status, *(b"%b: %b\r\n" % field for field in fields.items()), b"\r\n", body))


def refusal(error: Exception, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the response for an error, and count it. Args: headers, those of the request that have been read."""
    problem = dataclasses.replace(to_problem(error), request_id=id_of(headers))
    metrics_buffer().add_request(NO_ENDPOINT, problem.status, 0.0)
    return problem_bytes(problem)
