"""Turn problem+json into exceptions. A sample that cannot be used raises InputError, as the predictor does.

MlaServeError
├── InputError and its subclasses    the sample or an option: field, message, advice (errors.py)
└── ServiceError                     the service: status, kind, message, advice
    ├── Busy                         429 or 503 after all retries; retry_after in seconds, when known
    ├── NoAccess                     401 or 403: the key is missing or not accepted
    ├── TimedOut                     no answer within the limit of the service or of this client
    └── NoAnswer                     no service at the address, or the connection broke
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from mla_serve.errors import InputError, MissingInput, MlaServeError, TooLarge, UnknownField, UnsupportedFormat, advice

BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
INPUT_ERRORS: dict[str, type[InputError]] = {
    "missing-input": MissingInput,
    "unknown-field": UnknownField,
    "too-large": TooLarge,
    "unsupported-format": UnsupportedFormat,
}
QUOTED_BYTES = 300  # of an answer that is no problem+json
TAGS = re.compile(r"<[^>]*>?")  # HTML tags, of the error page of a proxy


class ServiceError(MlaServeError):
    """The service could not answer, for a reason other than the sample.

    Args: message, what happened and what to do; status, of the HTTP answer, if there was one; kind, the last part of the
    type of the problem; retry_after, seconds that the service asked to wait.
    """

    def __init__(
        self, message: str, status: int | None = None, kind: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.retry_after = retry_after

    @property
    def advice(self) -> str:
        """The part of the message that says what to do."""
        return advice(self.message)


class Busy(ServiceError):
    """The service was overloaded, also after all retries."""


class NoAccess(ServiceError):
    """The API key is missing or not accepted."""


class TimedOut(ServiceError):
    """No answer within the time limit of the service or of this client."""


class NoAnswer(ServiceError):
    """No service answers at this address, or the connection broke."""


BY_STATUS: dict[int, type[ServiceError]] = {
    401: NoAccess,
    403: NoAccess,
    429: Busy,
    503: Busy,
    504: TimedOut,
}


def from_response(status: int, content: bytes, retry_after: float | None = None, url: str = "") -> MlaServeError:
    """Turn an HTTP error into an exception. Args: url, the requested address, for the message."""
    problem = _problem(content)
    kind = str(problem.get("type", "")).rpartition("/")[2] or None
    message = str(problem.get("detail") or problem.get("title") or _unexplained(status, content))
    if status in BY_STATUS:
        return BY_STATUS[status](message, status, kind, retry_after)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and not problem:
        return TooLarge("body", "a proxy before the service refuses a request of this size; send less")
    if "field" in problem and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return INPUT_ERRORS.get(kind or "", InputError)(str(problem["field"]), message)
    if status == HTTPStatus.NOT_FOUND:
        message = f"{url}: {message}"
    return ServiceError(message, status, kind, retry_after)


def _problem(content: bytes) -> dict[str, Any]:
    """Parse problem+json; return an empty dict for anything else, such as the error page of a proxy."""
    try:
        problem = json.loads(content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _unexplained(status: int, content: bytes) -> str:
    """Describe an error that is no problem+json by its status and the words of its body."""
    phrase = next((each.phrase for each in HTTPStatus if each == status), "no known status")
    words = " ".join(TAGS.sub(" ", content[:QUOTED_BYTES].decode(errors="replace")).split())
    shown = "".join(letter for letter in words if letter.isprintable())
    return f"{status} {phrase}{f' ({shown})' if shown else ''}; is this address an mla_serve service?"


def unreadable(url: str, error: Exception) -> ServiceError:
    """Make the error for a successful answer that mla_serve did not write."""
    return ServiceError(f"{url}: the answer is no mla_serve answer ({error!r}); check the address and both versions")
