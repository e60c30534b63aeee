"""A BentoML endpoint with typed fields and the bundle's own ONNX graphs.

As its documentation says: a sync method for work that blocks, `workers` as many as cores. A file would be a `Path`, but
optional files cannot be sent (`Path | None` answers every upload with 400), so files are base64 in JSON (BentoML 1.4
takes pydantic's Base64Bytes for no field). Its adaptive batching takes exactly one batched argument and so a second service in front of it for a single
sample, whose calls cost more than these graphs (docs: Adaptive batching, Handle multiple parameters).

For benchmarks only: typed endpoints have no limit on a body and read what they are told to read.
"""

from __future__ import annotations

import base64
from typing import Any

import bentoml

from benchmarks.serving.peers.common import onnx_model, setting
from mla_serve.inputs import Payload


@bentoml.service(workers=int(setting("WORKERS")), threads=int(setting("CALLS")))
class Typed:
    """Classify from whichever of image, audio and text are sent."""

    def __init__(self) -> None:
        """Open the graphs, once in each worker."""
        self.model = onnx_model()

    @bentoml.api
    def predict(self, image: str | None = None, audio: str | None = None, text: str | None = None) -> dict[str, Any]:
        """Answer one sample."""
        files = {name: base64.b64decode(file) for name, file in (("image", image), ("audio", audio)) if file}
        sample: dict[str, Payload] = {**files, **({} if text is None else {"text": text})}
        return self.model.answer([sample])[0]
