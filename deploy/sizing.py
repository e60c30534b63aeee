"""How many workers, how much memory: measured on this machine, with this bundle.

python -m deploy.sizing --model models/digits --target 500
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.demo.traffic import Sample, samples_of
from mla_serve.commands.tune_load import Connection, form_request, keep_busy
from mla_serve.console import main
from mla_serve.serve.settings import Settings
from tests.load.service import serving

BUSY = 0.6  # of what a worker can do: what is left is for bursts and for a replica that is gone
CONNECTIONS = 8


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    model: Path = Path("models/digits")
    """The bundle to serve."""
    data: Path | None = None
    """A data set, whose test split is sent; the bundle's golden samples when left out."""
    target: float = 500.0
    """Requests a second to size for."""
    seconds: float = 15.0
    """Of load."""


async def load(port: int, samples: Sequence[Sample], seconds: float) -> list[float]:
    """Keep every connection busy; returns the seconds of each answer."""
    requests, taken = itertools.cycle([form_request(sample) for sample in samples]), []

    async def ask_one(connection: Connection) -> None:
        start = time.monotonic()
        answer = await connection.ask(next(requests))
        if answer.status != 200:
            raise SystemExit(f"the service answered {answer.status}; what was sent must be what it reads")
        taken.append(time.monotonic() - start)

    await keep_busy(port, ask_one, CONNECTIONS, seconds)
    return taken


def run(config: Config) -> None:
    """Measure one worker, and print what that means."""
    samples = samples_of(config.model, config.data)
    with serving(config.model, workers=1) as service:
        asyncio.run(load(service.port, samples, 2))
        taken = sorted(asyncio.run(load(service.port, samples, config.seconds)))
        memory = service.memory() / 2**20
    rate = len(taken) / config.seconds
    workers = math.ceil(config.target / (BUSY * rate))
    print(f"one worker: {rate:.0f} requests/s over {CONNECTIONS} connections, every modality in each")
    print(
        f"            median {1000 * taken[len(taken) // 2]:.0f} ms, p99 {1000 * taken[int(0.99 * len(taken))]:.0f} ms"
    )
    limit = 1.5 * memory + Settings.model_fields["max_held_bytes"].default / 2**20
    print(f"            {memory:.0f} MiB resident; request {1.5 * memory:.0f} MiB a worker, limit {limit:.0f}")
    print(f"for {config.target:g} requests/s at {BUSY:.0%} load: {workers} workers, one processor core each")
    print(f"load of this machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main(run, Config)
