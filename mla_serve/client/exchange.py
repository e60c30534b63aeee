"""One call as a generator of steps: send a request, wait some seconds, return the result.

The blocking and the asynchronous client carry the steps out. So they share every decision: what to send, what to retry and
when, what an answer means. Nothing here uses the network or waits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import json
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar

import httpx

from mla_serve.bundle.results import Embedding, Prediction
from mla_serve.client import errors
from mla_serve.client.model import Modality, Model
from mla_serve.errors import InputError, MissingInput, MlaServeError, UnknownField
from mla_serve.payloads import Value, check_sample, drop_missing, needs_model, to_payload

T = TypeVar("T")
Reply = TypeVar("Reply", Prediction, Embedding)
Parts = list[tuple[str, Any]]
DEFAULT_URL = "http://localhost:3000"
RETRIED_ERRORS = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError, httpx.PoolTimeout)
CONNECTION_ADVICE = "check the address, that the service runs, and any proxy that HTTP_PROXY and NO_PROXY name"


@dataclasses.dataclass(frozen=True)
class Retry:
    """How often and after how long a call is retried.

    The n-th wait is Retry-After plus a random time from 0 to min(longest, first * 2^n) seconds. This "full jitter" spreads
    the retries of clients that were refused at the same time. When Retry-After is longer than `patience` seconds, the call
    fails at once.
    """

    times: int = 4
    first: float = 0.25
    longest: float = 8.0
    patience: float = 60.0

    def wait(self, attempt: int, asked: float | None, draw: Callable[[], float]) -> float:
        """Return the seconds to wait after attempt 0, 1, ... Args: asked, Retry-After; draw, returns a number from 0 to 1."""
        return (asked or 0.0) + draw() * min(self.longest, self.first * 2.0**attempt)


@dataclasses.dataclass(frozen=True)
class Send:
    """Step: send a request. Its outcome is the response, or the exception of the attempt."""

    request: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Step: wait some seconds."""

    seconds: float


Step = Send | Wait
Outcome = httpx.Response | httpx.RequestError | None
Steps = Generator[Step, Outcome, T]


class Exchange:
    """The calls of one client."""

    def __init__(self, url: str, retry: Retry, draw: Callable[[], float] = random.random) -> None:
        """Keep the address of the service, when to retry, and a source of random numbers from 0 to 1."""
        self.url = url.rstrip("/")
        self.retry = retry
        self._draw = draw
        self._model: Model | None = None

    def predict(self, sample: Mapping[str, Value | None], **options: float | str | None) -> Steps[Prediction]:
        """Answer one sample. Options that are None are not sent."""
        fields = [
            (name, (None, f"{value}".encode(errors="replace"))) for name, value in options.items() if value is not None
        ]
        return (yield from self._ask("/predict", Prediction.from_dict, sample, fields))

    def embed(self, sample: Mapping[str, Value | None]) -> Steps[Embedding]:
        """Encode one sample."""
        return (yield from self._ask("/embed", Embedding.from_dict, sample))

    def model(self) -> Steps[Model]:
        """Describe the model."""
        content = yield from self._call("GET", "/model")
        self._model = self._read(Model.from_dict, content, "/model")
        return self._model

    def ready(self) -> Steps[bool]:
        """Ask once whether the service accepts requests."""
        outcome = yield Send({"method": "GET", "url": "/readyz"})
        return isinstance(outcome, httpx.Response) and outcome.status_code == httpx.codes.OK

    def _ask(
        self,
        path: str,
        read: Callable[[Mapping[str, Any]], Reply],
        sample: Mapping[str, Value | None],
        fields: Iterable[tuple[str, Any]] = (),
    ) -> Steps[Reply]:
        """Send a sample. Forget the description of the model when another model answers or the sample is refused."""
        parts: Parts = yield from self._parts(sample)
        try:
            content = yield from self._call("POST", path, files=[*parts, *fields])
        except InputError:
            self._model = None
            raise
        reply = self._read(read, content, path)
        if self._model is not None and (reply.model is None or self._model.sha256 != reply.model.sha256):
            self._model = None
        return reply

    def _parts(self, sample: Mapping[str, Value | None]) -> Steps[Parts]:
        """Write a sample as the parts of a form.

        The description of the model is fetched once, when the kinds of the modalities matter, and again when a sample does
        not fit, because the service may have another model by now.
        """
        sample = check_sample(sample)
        there = drop_missing(sample)
        if not there:
            first = next(iter(sample), "sample")
            raise MissingInput(first, "nothing was given; give at least one modality, such as text='seven'")
        if (known := self._model) is not None:
            with contextlib.suppress(InputError):
                return _form_parts(sample, there, known)
        if known is None and not any(needs_model(value) for value in there.values()):
            return [to_part(name, value, None) for name, value in there.items()]
        model = yield from self.model()
        return _form_parts(sample, there, model)

    def _call(self, method: str, path: str, **request: Any) -> Steps[dict[str, Any]]:
        """Send a request until it is answered or a retry makes no sense."""
        for attempt in range(self.retry.times + 1):
            outcome = yield Send({"method": method, "url": path, **request})
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return self._read(_json_object, outcome, path)
            error, again = _failure(outcome, self.url + path)
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


def _form_parts(names: Iterable[str], there: Mapping[str, Value], model: Model) -> Parts:
    """Write the modalities that are there as parts of a form. Raises: UnknownField for a name that the model does not have."""
    known = model.modalities
    if unknown := [name for name in names if name not in known]:
        raise UnknownField(
            unknown[0], f"this model has no such modality; leave it out, or send some of {', '.join(known)}"
        )
    return [to_part(name, value, known[name]) for name, value in there.items()]


def to_part(name: str, value: Value, modality: Modality | None) -> tuple[str, Any]:
    """Make one part of a form, as httpx's `files` takes it: numbers and cells are written as JSON.

    Args: modality, as GET /model describes it; None where the value does not depend on it (see `needs_model`).
    Raises: InputError for a value that cannot be sent as this modality.
    """
    payload = to_payload(name, value, modality)
    if modality is None or modality.sent_as == "file":
        return name, (name, payload)
    return name, (None, payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False))


def _failure(outcome: Outcome, url: str) -> tuple[MlaServeError, bool]:
    """Return the error of a failed attempt, and whether a retry may succeed."""
    if isinstance(outcome, httpx.Response) and outcome.has_redirect_location:
        return errors.NoAnswer(
            f"{url}: it is at {outcome.headers['location']} now; give the client that address"
        ), False
    if isinstance(outcome, httpx.Response):
        asked = retry_after(outcome.headers.get("retry-after"), time.time())
        error = errors.from_response(outcome.status_code, outcome.content, asked, url)
        return error, outcome.status_code in errors.BUSY
    again = isinstance(outcome, RETRIED_ERRORS)
    reason = f"{outcome}" or type(outcome).__name__
    if isinstance(outcome, httpx.TimeoutException) and not again:
        return errors.TimedOut(f"{url}: no answer in time ({reason}); send less, or raise timeout="), False
    return errors.NoAnswer(f"{url}: no connection ({reason}); {CONNECTION_ADVICE}"), again


def retry_after(header: str | None, now: float) -> float | None:
    """Parse a Retry-After header, seconds or a date, as seconds from now; None when it is missing or malformed."""
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
