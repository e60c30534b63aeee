"""From settings to a predictor that has been proved right on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from mla_serve.bundle import Bundle
from mla_serve.predictor import Predictor
from mla_serve.runtime import check_runtime
from mla_serve.serve.settings import Settings


def open_predictor(settings: Settings, providers: Sequence[str] | None = None) -> Predictor:
    """Load the bundle, open its graphs, replay its golden samples, and put the operator's limits on its inputs.

    Args: providers, onnxruntime's names; those of the settings when left out.
    Raises: ConfigError or BundleError, in one line that says what to do.
    """
    check_runtime()
    bundle = Bundle.load(settings.model)
    chosen = settings.providers if providers is None else providers
    predictor = Predictor(bundle, chosen, settings.graph_threads, spin=settings.spin)
    predictor.verify()
    bundle.inputs = {name: settings.limit(reader) for name, reader in bundle.inputs.items()}
    return predictor
