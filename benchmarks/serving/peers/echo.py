"""A bare Starlette application that reads the body and answers what an answer looks like: the most that HTTP can do here."""

from __future__ import annotations

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.serving.peers.common import setting

LISTED = b",".join(b'{"label":"%d","probability":0.0123456789}' % label for label in range(20))
ANSWER = b'{"label":"0","probabilities":[%s]}' % LISTED


async def predict(request: Request) -> Response:
    """Read all, answer always the same."""
    await request.body()
    return Response(ANSWER, media_type="application/json")


async def ready(_: Request) -> Response:
    """Be ready."""
    return Response(b"")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/readyz", ready)])

if __name__ == "__main__":
    workers = int(setting("WORKERS"))
    uvicorn.run("benchmarks.serving.peers.echo:app", port=int(setting("PORT")), workers=workers, log_level="warning")
