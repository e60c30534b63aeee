"""FastAPI and torch in eager mode: what a training script turned into a service looks like.

As FastAPI's documentation says: optional `UploadFile` and `Form` parameters, a plain `def` for work that blocks (it runs
in a thread pool), uvicorn with several workers, models loaded in the lifespan. As torch's says: eval and
inference_mode. The number of threads and workers is tried out before the benchmark.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, File, Form, UploadFile
from torch import nn

from benchmarks.serving.peers.common import Function, Model, open_bundle, setting
from benchmarks.serving.peers.torch_weights import rebuild
from mla_serve.fusion.formula import Array
from mla_serve.inputs import Payload

loaded: dict[str, Any] = {}


def function(module: nn.Module) -> Function:
    """Run a module on arrays."""

    def run(batch: Array) -> Array:
        with torch.inference_mode():
            output: Array = module(torch.from_numpy(batch)).numpy()
            return output

    return run


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Build the modules, once in each worker, and run each once."""
    torch.set_num_threads(int(setting("THREADS")))
    bundle = open_bundle()
    rebuilt = rebuild(bundle)
    encoders = {name: function(module) for name, module in rebuilt.encoders.items()}
    heads = {name: function(module) for name, module in rebuilt.heads.items()}
    loaded["model"], loaded["weights"] = Model(bundle, encoders, heads), rebuilt.weights
    loaded["model"].answer(bundle.golden_samples())
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/readyz")
def ready() -> dict[str, str]:
    """Say where the weights are from."""
    return {"weights": loaded["weights"]}


@app.post("/predict")
def predict(
    image: Annotated[UploadFile | None, File()] = None,
    audio: Annotated[UploadFile | None, File()] = None,
    text: Annotated[str | None, Form()] = None,
) -> dict[str, Any]:
    """Answer one sample."""
    sample: dict[str, Payload] = {} if text is None else {"text": text}
    files = {"image": image, "audio": audio}
    sample |= {name: file.file.read() for name, file in files.items() if file is not None}
    answer: dict[str, Any] = loaded["model"].answer([sample])[0]
    return answer


if __name__ == "__main__":
    workers = int(setting("WORKERS"))
    uvicorn.run(
        "benchmarks.serving.peers.torch_eager:app",
        port=int(setting("PORT")),
        workers=workers,
        log_level="warning",
        access_log=False,
        timeout_worker_healthcheck=60,  # importing torch can take longer than the 5 s after which a worker is killed
    )
