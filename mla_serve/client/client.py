"""Client and AsyncClient: carry out the steps of exchange.py, blocking or with asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self, TypeVar, cast, overload

import httpx

from mla_serve import __version__
from mla_serve.bundle.results import Embedding, Prediction
from mla_serve.client.errors import NoAccess, NoAnswer
from mla_serve.client.exchange import DEFAULT_URL, Exchange, Outcome, Retry, Send, Step, Steps
from mla_serve.client.many import OnError, Queue, Sample, progress_bar
from mla_serve.client.model import Model
from mla_serve.errors import MlaServeError
from mla_serve.payloads import Value

T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)
CONNECT_S = 5.0
HIGHEST_PORT = 65535


def _options(url: str, timeout: float | None, api_key: str | None, transport: Any) -> dict[str, Any]:
    """Return the arguments that httpx.Client and httpx.AsyncClient share."""
    headers = {"User-Agent": f"mla-serve-client/{__version__}"}
    if api_key and api_key.strip():
        headers["Authorization"] = f"Bearer {_checked_key(api_key.strip())}"
    patience = httpx.Timeout(timeout, connect=CONNECT_S if timeout is None else min(timeout, CONNECT_S))
    address = url.strip() if isinstance(url, str) else url
    return {"base_url": address, "timeout": patience, "headers": headers, "transport": transport}


def _shown(url: httpx.URL) -> str:
    """Write an address for an error message: without a password."""
    return str(url.copy_with(userinfo=b""))


def _checked_key(api_key: str) -> str:
    """Refuse a key that no HTTP header can contain. The message does not quote it, because it is a secret. Raises: NoAccess."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise NoAccess("api_key: expected printable ASCII, got other characters; copy the key again")
    return api_key


def _opened(kind: Callable[..., Http], options: Mapping[str, Any]) -> Http:
    """Make an httpx client. Raises: NoAnswer for a bad address or bad values of HTTP_PROXY, NO_PROXY or SSL_CERT_FILE."""
    try:
        http = kind(**options)
        http.base_url.host.encode("idna")  # a name that cannot be looked up would raise UnicodeError later
        if (http.base_url.port or 0) > HIGHEST_PORT:
            raise ValueError(f"the port is above {HIGHEST_PORT}")
    except (httpx.InvalidURL, ImportError, ValueError, OSError, TypeError) as error:
        address = f"{options['base_url']!r}".rpartition("@")[2]  # without a password
        raise NoAnswer(
            f"{address}: no connection can be made ({error}); expected an address such as {DEFAULT_URL}, and valid "
            "values of HTTP_PROXY, NO_PROXY and SSL_CERT_FILE"
        ) from None
    return http


class Client:
    """A blocking client; safe to use from several threads. Close it, or use it in a `with` block.

    Args: url, of the service; api_key, sent as `Authorization: Bearer`; timeout, seconds for one attempt, None for no limit;
    retry, how often and when a call is retried; transport and sleep, replaced in tests.

    Every call raises InputError with the name of the field for a sample that cannot be used, and ServiceError for all else.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | None = 30.0,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = _opened(httpx.Client, _options(url, timeout, api_key, transport))
        self._exchange = Exchange(_shown(self._http.base_url), retry or Retry())
        self._sleep = sleep

    def predict(
        self,
        /,
        *,
        top_k: int | None = None,
        fusion: str | None = None,
        coverage: float | None = None,
        **sample: Value | None,
    ) -> Prediction:
        """Answer one sample from whichever of its modalities are given; None, NaN and blank text mean missing.

        An image is a path, bytes, an open file, a PIL image or an array, (H, W), (H, W, 3) or (3, H, W); a sound a path,
        bytes, an open file or (array, rate), with (T,), (T, channels) or (channels, T); a text a str; a vector a list,
        an array or, where the model reads a single one, a number.
        """
        return self._run(self._exchange.predict(sample, top_k=top_k, fusion=fusion, coverage=coverage))

    @overload
    def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = ...,
        progress: bool | None = ...,
        on_error: Literal["raise"] = ...,
        **options: Any,
    ) -> list[Prediction]: ...
    @overload
    def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = ...,
        progress: bool | None = ...,
        on_error: Literal["return"],
        **options: Any,
    ) -> list[Prediction | MlaServeError]: ...
    def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = 8,
        progress: bool | None = None,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Any:
        """Answer many samples, `concurrency` at a time, and return the answers in their order.

        Args: samples, dicts of {modality: value}, such as frame.to_dict("records"); progress, whether to show a bar on
        standard error, by default when that is a terminal; on_error, "raise" the first error or "return" each error in the
        place of its answer; options, those of predict.
        """
        with progress_bar(samples, progress) as advance, ThreadPoolExecutor(_positive(concurrency)) as pool:
            queue = Queue(samples, on_error, advance)
            try:
                list(pool.map(lambda _: self._work(queue, options), range(concurrency)))
            except BaseException as error:  # Ctrl-C: let the threads finish the call they are in, and no other
                queue.failure = error
                raise
        return queue.results()

    def embed(self, /, **sample: Value | None) -> Embedding:
        """Return the encoder's features of each modality that is given."""
        return self._run(self._exchange.embed(sample))

    def model(self) -> Model:
        """Describe the model: classes, modalities and how to send them, limits, measured results."""
        return self._run(self._exchange.model())

    def ready(self) -> bool:
        """Return whether the service accepts requests now."""
        return self._run(self._exchange.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, queue: Queue, options: dict[str, Any]) -> None:
        for index, sample in queue:
            with queue.place(index) as put:
                put(self._run(self._exchange.predict(sample, **options)))

    def _run(self, steps: Steps[T]) -> T:
        """Carry the steps out."""
        try:
            step = next(steps)
            while True:
                step = steps.send(self._do(step))
        except StopIteration as end:
            return cast(T, end.value)

    def _do(self, step: Step) -> Outcome:
        if not isinstance(step, Send):
            self._sleep(step.seconds)
            return None
        try:
            return self._http.request(**step.request)
        except httpx.RequestError as error:
            return error


class AsyncClient:
    """The client for asyncio: every method is awaited. Close it with `aclose`, or use it in an `async with` block."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | None = 30.0,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = _opened(httpx.AsyncClient, _options(url, timeout, api_key, transport))
        self._exchange = Exchange(_shown(self._http.base_url), retry or Retry())
        self._sleep = sleep

    async def predict(
        self,
        /,
        *,
        top_k: int | None = None,
        fusion: str | None = None,
        coverage: float | None = None,
        **sample: Value | None,
    ) -> Prediction:
        """Answer one sample, as Client.predict does."""
        return await self._run(self._exchange.predict(sample, top_k=top_k, fusion=fusion, coverage=coverage))

    @overload
    async def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = ...,
        progress: bool | None = ...,
        on_error: Literal["raise"] = ...,
        **options: Any,
    ) -> list[Prediction]: ...
    @overload
    async def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = ...,
        progress: bool | None = ...,
        on_error: Literal["return"],
        **options: Any,
    ) -> list[Prediction | MlaServeError]: ...
    async def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = 8,
        progress: bool | None = None,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Any:
        """Answer many samples, as Client.predict_many does."""
        with progress_bar(samples, progress) as advance:
            queue = Queue(samples, on_error, advance)
            await asyncio.gather(*(self._work(queue, options) for _ in range(_positive(concurrency))))
        return queue.results()

    async def embed(self, /, **sample: Value | None) -> Embedding:
        """Return the encoder's features of each modality that is given."""
        return await self._run(self._exchange.embed(sample))

    async def model(self) -> Model:
        """Describe the model."""
        return await self._run(self._exchange.model())

    async def ready(self) -> bool:
        """Return whether the service accepts requests now."""
        return await self._run(self._exchange.ready())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _work(self, queue: Queue, options: dict[str, Any]) -> None:
        for index, sample in queue:
            with queue.place(index) as put:
                put(await self._run(self._exchange.predict(sample, **options)))

    async def _run(self, steps: Steps[T]) -> T:
        """Carry the steps out."""
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._do(step))
        except StopIteration as end:
            return cast(T, end.value)

    async def _do(self, step: Step) -> Outcome:
        if not isinstance(step, Send):
            await self._sleep(step.seconds)
            return None
        try:
            return await self._http.request(**step.request)
        except httpx.RequestError as error:
            return error


def _positive(concurrency: int) -> int:
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}: expected a whole number from 1")
    return concurrency
