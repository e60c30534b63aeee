"""One call as steps that somebody else carries out: send this, wait so long, here is the result.

The steps are a generator, so that the blocking and the asynchronous client share every decision: what is sent, what is
tried again and after how long, what an answer means. Nothing here touches the network or the clock.
"""

from __future__ import annotations

import dataclasses
import email.utils
import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import httpx

from mla_serve.client import errors
from mla_serve.client.model import Model
from mla_serve.client.payloads import Value, needs_kind, to_part
from mla_serve.errors import MissingInput, MlaServeError, UnknownField
from mla_serve.results import Answer, Embedding

T = TypeVar("T")
DEFAULT_URL = "http://localhost:3000"
TRIED_AGAIN = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.PoolTimeout)


@dataclasses.dataclass(frozen=True)
class Retry:
    """How often and after how long a call is tried again.

    The n-th wait is drawn from 0 to min(longest, first * 2^n) seconds ("full jitter": clients that were turned away
    together do not come back together), on top of what Retry-After asks for. A service that asks for more than
    `patience` seconds is not waited for.
    """

    times: int = 4
    first: float = 0.25
    longest: float = 8.0
    patience: float = 60.0

    def wait(self, attempt: int, asked: float | None, draw: Callable[[], float]) -> float:
        """Return the seconds to wait after attempt 0, 1, ...; draw gives a number from 0 to 1."""
        return (asked or 0.0) + draw() * min(self.longest, self.first * 2.0**attempt)


@dataclasses.dataclass(frozen=True)
class Send:
    """Step: send this; the outcome is a response, or the exception of the attempt."""

    request: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Step: wait so many seconds."""

    seconds: float


Step = Send | Wait
Outcome = httpx.Response | httpx.TransportError | None
Steps = Generator[Step, Outcome, T]


class Exchange:
    """The calls of one client."""

    def __init__(self, url: str, retry: Retry, draw: Callable[[], float] = random.random) -> None:
        """Speak to the service at this address and try again by these rules; draw gives random numbers from 0 to 1."""
        self.url = url.rstrip("/")
        self.retry = retry
        self._draw = draw
        self._model: Model | None = None

    def predict(self, sample: Mapping[str, Value | None], **options: float | str | None) -> Steps[Answer]:
        """Classify one sample; options that are None are left to the service."""
        parts = yield from self._parts(sample)
        fields = [(name, (None, f"{value}")) for name, value in options.items() if value is not None]
        content = yield from self._call("POST", "/predict", files=[*parts, *fields])
        return self._read(Answer.from_dict, content, "/predict")

    def embed(self, sample: Mapping[str, Value | None]) -> Steps[Embedding]:
        """Encode one sample."""
        parts = yield from self._parts(sample)
        content = yield from self._call("POST", "/embed", files=parts)
        return self._read(Embedding.from_dict, content, "/embed")

    def model(self) -> Steps[Model]:
        """Describe the model."""
        content = yield from self._call("GET", "/model")
        self._model = self._read(Model.from_dict, content, "/model")
        return self._model

    def ready(self) -> Steps[bool]:
        """Ask once whether the service takes requests."""
        outcome = yield Send({"method": "GET", "url": "/readyz"})
        return isinstance(outcome, httpx.Response) and outcome.status_code == httpx.codes.OK

    def _parts(self, sample: Mapping[str, Value | None]) -> Steps[list[tuple[str, Any]]]:
        """Lay a sample out as the parts of a form; the model is asked once what its modalities are, if that matters."""
        given = {name: value for name, value in sample.items() if value is not None}
        if not given:
            raise MissingInput("sample", "nothing was given; give at least one modality, such as text='seven'")
        if self._model is None and any(needs_kind(value) for value in given.values()):
            yield from self.model()
        modalities = self._model.modalities if self._model else {}
        kinds = {name: modality.kind for name, modality in modalities.items()}
        if self._model and (unknown := [name for name in given if name not in kinds]):
            raise UnknownField(unknown[0], f"this model has no such modality; it reads {', '.join(kinds)}")
        return [to_part(name, value, kinds.get(name)) for name, value in given.items()]

    def _call(self, method: str, path: str, **request: Any) -> Steps[dict[str, Any]]:
        """Send a request until it is answered or there is no sense in trying again."""
        for attempt in range(self.retry.times + 1):
            outcome = yield Send({"method": method, "url": path, **request})
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return self._read(_json_object, outcome, path)
            error, again = _judge(outcome, self.url + path)
            asked = getattr(error, "retry_after", None)
            if not again or attempt == self.retry.times or (asked or 0.0) > self.retry.patience:
                raise error
            yield Wait(self.retry.wait(attempt, asked, self._draw))
        raise AssertionError("the last attempt returns or raises")

    def _read(self, read: Callable[[Any], T], content: Any, path: str) -> T:
        try:
            return read(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise errors.unreadable(self.url + path, error) from None


def _judge(outcome: Outcome, url: str) -> tuple[MlaServeError, bool]:
    """Say what went wrong, and whether it may go right next time."""
    if isinstance(outcome, httpx.Response):
        asked = retry_after(outcome.headers.get("retry-after"), time.time())
        return errors.from_response(outcome.status_code, outcome.content, asked), outcome.status_code in errors.BUSY
    again = isinstance(outcome, TRIED_AGAIN)
    reason = f"{outcome}" or type(outcome).__name__
    if isinstance(outcome, httpx.TimeoutException) and not again:
        return errors.TimedOut(f"{url}: no answer in time ({reason}); send less, or raise timeout="), False
    return errors.NoAnswer(f"{url}: no connection ({reason}); check its address, and that it runs"), again


def retry_after(header: str | None, now: float) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None where there is none that can be read."""
    if not header:
        return None
    try:
        return max(0.0, float(header)) if header.strip().isdigit() else max(0.0, _timestamp(header) - now)
    except (TypeError, ValueError, OverflowError):
        return None


def _timestamp(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp()


def _json_object(response: httpx.Response) -> dict[str, Any]:
    content = response.json()
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content
