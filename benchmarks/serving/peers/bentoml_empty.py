"""An empty BentoML service: what BentoML alone costs. It imports nothing else, for that would count as BentoML's."""

from __future__ import annotations

import os
from typing import Any

import bentoml


@bentoml.service(workers=int(os.environ.get("BENCH_WORKERS", "1")))
class Empty:
    """Do nothing."""

    @bentoml.api
    def predict(self) -> dict[str, Any]:
        """Answer nothing."""
        return {}
