"""LitServe with the bundle's own ONNX graphs and mla_serve's thread settings.

As its documentation says: a LitAPI with setup, decode_request, predict and encode_response; on a CPU as many workers as
cores, and as many HTTP processes as workers (the default); batching by max_batch_size;
fast_queue for ZeroMQ in place of a manager's queue. Files are base64 in JSON, as in
its examples: a form cannot be pickled on its way to the workers (0.2.19 with Starlette 1 answers 500).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import litserve

from benchmarks.serving.peers.common import onnx_model, setting
from mla_serve.inputs import Payload

Sample = dict[str, Payload]


class Api(litserve.LitAPI):
    """One request at a time."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Open the graphs, once in each worker."""
        self.model = onnx_model()

    def decode_request(self, request: Mapping[str, str]) -> Sample:
        """Take the fields: files out of base64, text as it is."""
        return {name: value if name == "text" else base64.b64decode(value) for name, value in request.items()}

    def predict(self, sample: Any) -> Any:
        """Answer one sample."""
        return self.model.answer([sample])[0]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Send the answer as it is."""
        return output


class BatchedApi(Api):
    """What has come in meanwhile at once."""

    def batch(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Keep the samples apart: each has a subset of its own."""
        return samples

    def predict(self, samples: Any) -> Any:
        """Answer all."""
        return self.model.answer(samples)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers are apart already."""
        return output


def main() -> None:
    """Serve until the process is ended."""
    batch = int(setting("BATCH"))
    api = BatchedApi(max_batch_size=batch, batch_timeout=0.0) if batch > 1 else Api()
    fast, workers = setting("FAST_QUEUE") == "1", int(setting("WORKERS"))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=fast)
    server.run(host="127.0.0.1", port=int(setting("PORT")), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
