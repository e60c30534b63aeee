"""Which requests BentoML answers and which our application answers."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from mla_serve.serve.models.current_model import ANY_OTHER_PATH, BENTOML_PATHS, CurrentModel


class Router:
    """Pass BentoML's own paths (probes, metrics, schema) to BentoML, and everything else to our application.

    BentoML mounts our application too, behind layers of its own: those cost a request half a millisecond, more than many a
    graph, they measure what metrics.py measures, and they keep each unknown path as a label of a metric.
    """

    def __init__(self, bentoml: ASGIApp, application: ASGIApp, model: CurrentModel) -> None:
        """Wrap both. Args: model, whose paths exist."""
        self.bentoml = bentoml
        self.application = application
        self.model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. All paths that do not exist get the same name."""
        path = scope.get("path")
        if scope["type"] == "lifespan" or path in BENTOML_PATHS:
            await self.bentoml(scope, receive, send)
            return
        if path not in self.model.paths:
            scope = {**scope, "path": ANY_OTHER_PATH, "raw_path": ANY_OTHER_PATH.encode()}
        await self.application(scope, receive, send)
