"""The application of the model that is served now. Another model may take its place while requests are running.

The change (hot swap) is one assignment: requests that have begun keep the application that they began with, and new ones
get the new one. The old application counts its requests, and closes its threads and graphs after the last of them.
"""

from __future__ import annotations

import functools
from pathlib import Path

from starlette.types import Receive, Scope, Send

from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import MlaServeError
from mla_serve.serve.api import Application, Routes, create_app
from mla_serve.serve.http.guard import KeysFile
from mla_serve.serve.models.open_predictor import KeptBundle, open_predictor
from mla_serve.serve.models.watch import Fingerprint, fingerprint
from mla_serve.serve.settings import Settings

BENTOML_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics", "/schema.json"})
ANY_OTHER_PATH = "/404"


class ModelApp:
    """The application of one model, and the number of requests that it is answering."""

    def __init__(self, app: Application) -> None:
        """Start without requests."""
        self.app = app
        self.paths = app.paths
        self.routes = app.routes
        self.running = 0
        self.retired = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1
            self._close_if_done()

    def retire(self) -> None:
        """Close threads and graphs as soon as the last request is answered."""
        self.retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.retired and not self.running:
            self.routes.close()


class CurrentModel:
    """The application of the newest model that works; there is none until a worker has verified its model."""

    def __init__(self, settings: Settings, run_folder: Path | None = None) -> None:
        """Start without a model. Args: run_folder, where the workers of this service keep a copy of their bundle."""
        self.settings = settings
        self.kept = KeptBundle(run_folder / "bundle" if run_folder else None)
        self.seen: Fingerprint | None = None
        """The fingerprint of the bundle's folder before it was loaded."""
        self.failure: Exception | None = None
        """Why the kept copy of a bundle is served instead of MLA_MODEL, if it is."""
        self._now: ModelApp | None = None
        self._before: list[ModelApp] = []

    @functools.cached_property
    def keys(self) -> KeysFile | None:
        """The API keys of this worker, shared by all its models: a file that cannot be used now prevents no new model."""
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
        """onnxruntime's names of the devices that run the graphs."""
        return self._now.routes.answerer.predictor.providers if self._now else []

    def open(self) -> None:
        """Load and verify the model and build its application; if MLA_MODEL cannot be used, that of the kept copy.

        Raises: MlaServeError; OSError.
        """
        self.seen = fingerprint(self.settings.model)
        try:
            predictor = open_predictor(self.settings)
            self.serve(predictor)
        except (MlaServeError, OSError) as error:
            folder = self.kept.find()
            if folder is None:
                raise
            self.failure = error
            predictor = open_predictor(self.settings, folder=folder)
            self.serve(predictor)
        self.kept.keep(predictor.bundle)

    def serve(self, predictor: Predictor) -> None:
        """Serve this predictor from the next request on; requests that are running end with the one before.

        Raises: ConfigError.
        """
        app, before = ModelApp(create_app(predictor, self.settings, self.keys)), self._now
        self._now = app
        if before is not None:
            self._before.append(before)
            before.retire()

    def set_refusal(self, refusal: dict[str, str] | None) -> None:
        """Show in /model why the newest bundle is not served."""
        if self._now is not None:
            self._now.routes.update_refused = refusal

    def longest(self) -> float:
        """Return for how many seconds a thread has been busy with one request to this model or an earlier one."""
        self._before = [each for each in self._before if each.running or each.routes.pool.longest()]
        return max((each.routes.pool.longest() for each in (*self._before, self._now) if each), default=0.0)

    def name(self, path: str) -> str:
        """Return a path that exists as it is, and one name for all others."""
        return path if path in self.paths or path in BENTOML_PATHS else ANY_OTHER_PATH

    def waiting(self) -> int:
        """Return how many requests wait for a thread."""
        return self._now.routes.pool.waiting if self._now else 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        assert self._now is not None, "BentoML takes no request before the service has been initialised"
        await self._now(scope, receive, send)
