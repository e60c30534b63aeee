"""What BentoML mounts at /: the application of the model that is served now, which may be another one in a minute."""

from __future__ import annotations

import functools

from starlette.types import ASGIApp, Receive, Scope, Send

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import MlaServeError
from mla_serve.serve.api import Application, Routes, create_app
from mla_serve.serve.http.guard import KeysFile
from mla_serve.serve.models.open_predictor import KeptBundle, open_predictor
from mla_serve.serve.models.watch import Fingerprint, fingerprint
from mla_serve.serve.settings import Settings

BENTOML_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/schema.json"})
ANY_OTHER_PATH = "/404"


class Serving:
    """The application of one model, and how many requests are in it."""

    def __init__(self, app: Application) -> None:
        """Start with none."""
        self.app = app
        self.paths = app.paths
        self.routes = app.routes
        self.inside = 0
        self.retired = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1
            self._end()

    def retire(self) -> None:
        """Let go of threads and graphs as soon as the last request is answered."""
        self.retired = True
        self._end()

    def _end(self) -> None:
        if self.retired and not self.inside:
            self.routes.close()


class Mounted:
    """Nothing until a worker has verified its model, then the application of the newest model that works."""

    def __init__(self, settings: Settings) -> None:
        """Start empty."""
        self.settings = settings
        self.kept = KeptBundle.of_service()
        self.seen: Fingerprint | None = None
        """What lay in the bundle's folder before it was loaded."""
        self.failure: Exception | None = None
        """Why the bundle that was kept is served, where it is."""
        self._now: Serving | None = None
        self._before: list[Serving] = []

    @functools.cached_property
    def keys(self) -> KeysFile | None:
        """The keys of this worker, the same for every model: a file that cannot be used now refuses no model."""
        path = self.settings.api_keys_file
        return KeysFile(path, must_be_usable=False) if path is not None else None

    @property
    def is_open(self) -> bool:
        """Whether there is a model."""
        return self._now is not None

    @property
    def routes(self) -> Routes | None:
        """The handlers of the model that is served."""
        return self._now.routes if self._now else None

    @property
    def paths(self) -> frozenset[str]:
        """The paths that exist."""
        return self._now.paths if self._now else frozenset()

    @property
    def sha256(self) -> str:
        """The manifest's hash of the model that is served."""
        return self._now.routes.answerer.model.sha256 if self._now else ""

    @property
    def providers(self) -> list[str]:
        """onnxruntime's names of what the graphs run on."""
        return self._now.routes.answerer.predictor.providers if self._now else []

    def open(self) -> None:
        """Load and verify the model and build the application; of a bundle that cannot be used, the one that others serve.

        Raises: MlaServeError; OSError.
        """
        self.seen = fingerprint(self.settings.model)
        try:
            predictor = open_predictor(self.settings)
            self.take(predictor)
        except (MlaServeError, OSError) as error:
            folder = self.kept.find()
            if folder is None:
                raise
            self.failure = error
            predictor = open_predictor(self.settings, folder=folder)
            self.take(predictor)
        self.kept.keep(predictor.bundle)

    def take(self, predictor: Predictor) -> None:
        """Serve this predictor from the next request on; those that are running end with the one before.

        Raises: ConfigError.
        """
        serving, before = Serving(create_app(predictor, self.settings, self.keys)), self._now
        self._now = serving
        if before is not None:
            self._before.append(before)
            before.retire()

    def note(self, refusal: dict[str, str] | None) -> None:
        """Show in /model why the newest bundle is not served."""
        if self._now is not None:
            self._now.routes.refusal = refusal

    def longest(self) -> float:
        """Return for how many seconds a thread has been busy with one request, to this model or one before."""
        self._before = [each for each in self._before if each.inside or each.routes.pool.longest()]
        return max((each.routes.pool.longest() for each in (*self._before, self._now) if each), default=0.0)

    def name(self, path: str) -> str:
        """Return a path, or one name for all that do not exist."""
        return path if path in self.paths or path in BENTOML_PATHS else ANY_OTHER_PATH

    def waiting(self) -> int:
        """Return how many requests wait for a thread."""
        return self._now.routes.pool.waiting if self._now else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        assert self._now is not None, "BentoML takes no request before the service has been initialised"
        await self._now(scope, receive, send)


class PastBentoML:
    """Pass what is for our application straight to it, and the rest to BentoML's, which mounts it.

    BentoML's layers cost a request half a millisecond, more than many a graph, and count what metrics.py counts. Every path
    that does not exist goes there under one name: BentoML's metrics would keep each as a label.
    """

    def __init__(self, app: ASGIApp, mounted: Mounted, *, traced: bool = False) -> None:
        """Wrap the whole of BentoML's application. Args: traced, that BentoML's tracing shall see every request."""
        self.app = app
        self.mounted = mounted
        self.traced = traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, renamed if need be."""
        path = scope.get("path")
        if scope["type"] == "http" and path in self.mounted.paths and not self.traced:
            await self.mounted(scope, receive, send)
            return
        if path is not None and self.mounted.name(path) != path:
            scope = {**scope, "path": ANY_OTHER_PATH, "raw_path": ANY_OTHER_PATH.encode()}
        await self.app(scope, receive, send)
