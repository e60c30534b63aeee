"""Errors as RFC 9457 problem+json. A new kind of problem is an exception and its entry in PROBLEM_KINDS.

`detail` may quote what a client sent, which JSON escapes. It is never logged.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mla_serve.errors import InputError, MissingInput, MlaServeError, TooLarge, UnknownField, UnsupportedFormat
from mla_serve.serve.metrics import meters
from mla_serve.serve.request_id import REQUEST_ID

log = logging.getLogger("mla_serve")
MEDIA_TYPE = "application/problem+json"
MAX_FIELD_LENGTH = 100
RETRY_AFTER_S = 1


class MalformedRequest(InputError):
    """The body cannot be parsed as its content type."""


class DeadlineExceeded(MlaServeError):
    """The request took longer than the operator allows."""


class Overloaded(MlaServeError):
    """There are more requests than the service takes on: send it again after RETRY_AFTER_S seconds."""


class Unavailable(MlaServeError):
    """The service takes no requests now: it is about to stop, or it cannot read its keys."""


class Unauthorised(MlaServeError):
    """No API key, or one that is not valid."""


class HeadTooLarge(MlaServeError):
    """The headers of a request are too long or too many."""


class UrlTooLong(MlaServeError):
    """The URL of a request is too long."""


class HeadTooSlow(MlaServeError):
    """The URL and headers of a request did not arrive in time."""


class TooCostly(InputError):
    """Decoding takes longer than the operator allows for one request."""


class NotFound(MlaServeError):
    """There is nothing at the path."""


class MethodNotAllowed(MlaServeError):
    """The path does not have this method."""


@dataclasses.dataclass(frozen=True)
class ProblemKind:
    """One kind of problem: HTTP status, the last part of its type URI, its title, what happened and what to do."""

    status: int
    slug: str
    title: str
    explanation: str

    @property
    def type(self) -> str:
        """The type URI, relative to the service, where a page explains it."""
        return f"/problems/{self.slug}"


PROBLEM_KINDS: dict[type[Exception], ProblemKind] = {
    InputError: ProblemKind(
        422,
        "invalid-input",
        "An input cannot be used",
        "A modality or an option was sent with a value that cannot be used: a list of numbers of another length, a text "
        "where a file belongs, a field twice. The member field names it, and detail says what was expected. Sending the "
        "same again gives the same answer.",
    ),
    MissingInput: ProblemKind(
        400,
        "missing-input",
        "No input was sent",
        "No modality was sent, or each was empty or null. At least one is needed; detail lists them.",
    ),
    UnknownField: ProblemKind(
        400,
        "unknown-field",
        "A field or option that this model does not have",
        "The request has a field, an option or a fusion rule that this model does not have. GET /model lists those that "
        "it has.",
    ),
    TooLarge: ProblemKind(
        413,
        "too-large",
        "More than the limits allow",
        "The body, a file, a text, a picture or a recording is larger than this service reads, or there are too many "
        "samples or values. detail names the limit. GET /model lists the limits; the operator sets them.",
    ),
    UnsupportedFormat: ProblemKind(
        415,
        "unsupported-format",
        "A format that is not read",
        "The content is of a format that is not read: the body by its Content-Type, or a file by its content. The name "
        "of a file does not matter. GET /model lists the formats of each modality.",
    ),
    MalformedRequest: ProblemKind(
        400,
        "malformed-request",
        "The body cannot be parsed",
        "The body is not what its Content-Type says, or it ends early. Let a library for HTTP or JSON write it.",
    ),
    NotFound: ProblemKind(
        404, "not-found", "No such path", "There is nothing at this path. /docs lists what there is."
    ),
    MethodNotAllowed: ProblemKind(
        405,
        "method-not-allowed",
        "A method that this path does not know",
        "The path exists, but not for this method. The header Allow lists those that it has.",
    ),
    Unauthorised: ProblemKind(
        401,
        "unauthorised",
        "A key is needed",
        "The request has no key, or one that is not known. The operator of the service gives keys out. Send one with "
        "every request: Authorization: Bearer KEY.",
    ),
    HeadTooSlow: ProblemKind(
        408,
        "head-too-slow",
        "The head of the request did not come in time",
        "The connection was opened, but the URL and the headers of a request did not arrive in the time that is allowed. "
        "Open a new connection and send the request again.",
    ),
    TooCostly: ProblemKind(
        413,
        "too-costly",
        "Decoding takes too long",
        "Decoding the files of this request takes more processor time than one request may have. Send fewer samples at "
        "once, or smaller files.",
    ),
    UrlTooLong: ProblemKind(
        414,
        "url-too-long",
        "The URL is too long",
        "Texts and files belong in the body; only options belong in the URL.",
    ),
    HeadTooLarge: ProblemKind(
        431,
        "head-too-large",
        "The headers are too long or too many",
        "The request has more header lines, or longer ones, than are read. Cookies of other services on the same host "
        "are a common reason.",
    ),
    Overloaded: ProblemKind(
        503,
        "overloaded",
        "More is asked for than can be answered",
        "The service has as much to do as it takes on, or it is about to stop. Send the request again after the seconds "
        "in the header Retry-After, and wait longer each time.",
    ),
    Unavailable: ProblemKind(
        503,
        "unavailable",
        "The service takes no requests now",
        "The service is about to stop, or it cannot tell who may call it because its file of keys cannot be used. Send the "
        "request again after the seconds in the header Retry-After, to another instance if there is one.",
    ),
    DeadlineExceeded: ProblemKind(
        504,
        "deadline-exceeded",
        "The request took too long",
        "The answer was not ready in the time that a request may take. Send less at once, or try again later.",
    ),
    Exception: ProblemKind(
        500,
        "internal-error",
        "The service failed",
        "This is a fault of the service, not of the request. The log of the service says more under the id of the "
        "request, which is in request_id and in the header X-Request-ID. Tell the operator.",
    ),
}

# Headers that tell a program what to do, without reading the problem.
ADVICE_HEADERS: dict[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_S)},
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem with the members of RFC 9457, the field of the request that is at fault, and the id of the request."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    request_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the members that are not None."""
        return {key: value for key, value in vars(self).items() if value is not None}


def to_problem(error: Exception) -> Problem:
    """Turn an exception into a problem. A bug becomes a plain 500 and is logged, since its text may quote what was sent."""
    kind = next(PROBLEM_KINDS[cls] for cls in type(error).__mro__ if cls in PROBLEM_KINDS)
    meters().problem(kind.slug, getattr(error, "field", None))
    if kind is PROBLEM_KINDS[Exception]:
        log_bug(error)
        return Problem(kind.type, kind.title, kind.status, "an error of the service, not of the request; it was logged")
    if isinstance(error, InputError):
        return Problem(kind.type, kind.title, kind.status, error.message, error.field[:MAX_FIELD_LENGTH])
    return Problem(kind.type, kind.title, kind.status, str(error))


def problem_response(error: Exception, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to a request that ended with this exception."""
    problem = to_problem(error)
    return _response(problem, (headers or {}) | ADVICE_HEADERS.get(problem.status, {}))


def _response(problem: Problem, headers: dict[str, str]) -> Response:
    problem = dataclasses.replace(problem, request_id=REQUEST_ID.get())
    return Response(orjson.dumps(problem.to_dict()), problem.status, headers, MEDIA_TYPE)


async def answer_package_error(_: Request, error: Exception) -> Response:
    """Handle an error of this package in FastAPI."""
    return problem_response(error)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Handle starlette's own 404 and 405 in FastAPI."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem_response(NotFound("there is nothing at this path; /docs lists what there is"))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "another method")
        return problem_response(MethodNotAllowed(f"{request.method[:20]} was sent; send {allowed}"), headers)
    title = HTTPStatus(error.status_code).phrase
    return _response(Problem("about:blank", title, error.status_code, title), headers)


def log_bug(error: Exception) -> None:
    """Log an unexpected exception: its type and its frames, not its message, which may quote what a client sent."""
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    log.error("internal error in request %s: %s\n%s", REQUEST_ID.get(), type(error).__name__, frames)
