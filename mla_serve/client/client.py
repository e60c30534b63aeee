"""Client and AsyncClient: the steps of exchange.py carried out, blocking or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self, TypeVar, cast, overload

import httpx

from mla_serve import __version__
from mla_serve.client.exchange import DEFAULT_URL, Exchange, Outcome, Retry, Send, Step, Steps
from mla_serve.client.many import OnError, Queue, Sample, progress_bar
from mla_serve.client.model import Model
from mla_serve.client.payloads import Value
from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.results import Answer, Embedding

T = TypeVar("T")
CONNECT_S = 5.0


def _options(url: str, timeout: float, api_key: str | None, transport: Any) -> dict[str, Any]:
    """Return the arguments that httpx.Client and httpx.AsyncClient share. Raises: ConfigError for what is no URL."""
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url}: {error}; expected the address of the service, such as {DEFAULT_URL}") from None
    headers = {"User-Agent": f"mla-serve-client/{__version__}"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    patience = httpx.Timeout(timeout, connect=min(timeout, CONNECT_S))
    return {"base_url": url, "timeout": patience, "headers": headers, "transport": transport}


class Client:
    """A blocking client; safe to use from several threads. Close it, or use it in a `with` block.

    Args: url, of the service; api_key, sent as `Authorization: Bearer`; timeout, seconds for one attempt; retry, what
    is tried again and when; transport, to reach the service in another way, for tests.

    Every call raises InputError, naming the field, for a sample that cannot be used, and ServiceError for the rest.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(**_options(url, timeout, api_key, transport))
        self._exchange = Exchange(url, retry or Retry())
        self._sleep = sleep

    def predict(
        self,
        *,
        top_k: int | None = None,
        fusion: str | None = None,
        coverage: float | None = None,
        **sample: Value | None,
    ) -> Answer:
        """Classify one sample from whichever of its modalities are given; None means missing.

        An image is a path, bytes, a PIL image or an array (H, W[, 3]); a sound a path, bytes or (array, rate); a text a
        str; a vector a list or an array of numbers.
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
    ) -> list[Answer]: ...
    @overload
    def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = ...,
        progress: bool | None = ...,
        on_error: Literal["return"],
        **options: Any,
    ) -> list[Answer | MlaServeError]: ...
    def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = 8,
        progress: bool | None = None,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Any:
        """Classify many samples, `concurrency` at a time, and return the answers in their order.

        Args: progress, a bar on standard error, by default where that is a terminal; on_error, "raise" the first error
        or "return" each in the place of its answer; options, as of predict.
        """
        with progress_bar(samples, progress) as advance, ThreadPoolExecutor(_positive(concurrency)) as pool:
            queue = Queue(samples, on_error, advance)
            try:
                list(pool.map(lambda _: self._work(queue, options), range(concurrency)))
            except BaseException as error:  # Ctrl-C: let the threads finish the call they are in, and no other
                queue.failure = error
                raise
        return queue.results()

    def embed(self, **sample: Value | None) -> Embedding:
        """Return the encoder's features of each modality that is given."""
        return self._run(self._exchange.embed(sample))

    def model(self) -> Model:
        """Describe the model: classes, modalities and how to send them, limits, measured results."""
        return self._run(self._exchange.model())

    def ready(self) -> bool:
        """Whether the service takes requests now."""
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
        except httpx.TransportError as error:
            return error


class AsyncClient:
    """The same for asyncio: every method is awaited. Close it with `aclose`, or use it in an `async with` block."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(**_options(url, timeout, api_key, transport))
        self._exchange = Exchange(url, retry or Retry())
        self._sleep = sleep

    async def predict(
        self,
        *,
        top_k: int | None = None,
        fusion: str | None = None,
        coverage: float | None = None,
        **sample: Value | None,
    ) -> Answer:
        """Classify one sample, as Client.predict does."""
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
    ) -> list[Answer]: ...
    @overload
    async def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = ...,
        progress: bool | None = ...,
        on_error: Literal["return"],
        **options: Any,
    ) -> list[Answer | MlaServeError]: ...
    async def predict_many(
        self,
        samples: Iterable[Sample],
        *,
        concurrency: int = 8,
        progress: bool | None = None,
        on_error: OnError = "raise",
        **options: Any,
    ) -> Any:
        """Classify many samples, as Client.predict_many does."""
        with progress_bar(samples, progress) as advance:
            queue = Queue(samples, on_error, advance)
            await asyncio.gather(*(self._work(queue, options) for _ in range(_positive(concurrency))))
        return queue.results()

    async def embed(self, **sample: Value | None) -> Embedding:
        """Return the encoder's features of each modality that is given."""
        return await self._run(self._exchange.embed(sample))

    async def model(self) -> Model:
        """Describe the model."""
        return await self._run(self._exchange.model())

    async def ready(self) -> bool:
        """Whether the service takes requests now."""
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
        except httpx.TransportError as error:
            return error


def _positive(concurrency: int) -> int:
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}: expected a whole number from 1")
    return concurrency
