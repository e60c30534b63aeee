"""Saturate the service for minutes: every answer right, nothing grows.

python -m tests.load.soak --model models/digits --seconds 600 --clients 32
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from pathlib import Path

import numpy as np

from mla_serve.commands.tune_load import get
from tests.load.clients import load, questions
from tests.load.service import Service, serving

GROWTH = 1.05
WARM_UP = 0.2  # of the time: until memory is compared


def soak(service: Service, model: Path, seconds: float, clients: int) -> list[str]:
    """Run it; returns what is not as it should be."""
    asked = questions(model)
    warm = asyncio.run(load(service.port, asked, WARM_UP * seconds, clients))
    for _ in range(40):  # all 32 connections may have gone to one worker: meet the others, which open files once
        get(service.port, "/model")
    files, memory = service.settle(0, 10), service.memory()  # idle connections are closed after 5 s
    ran, waited = service.processor()
    tally = asyncio.run(load(service.port, asked, (1 - WARM_UP) * seconds, clients))
    ran, waited = (now - then for now, then in zip(service.processor(), (ran, waited), strict=True))
    more_files = service.settle(files) - files
    growth = service.memory() / memory
    rate = tally.answered / ((1 - WARM_UP) * seconds)
    print(f"answers        {warm.answered + tally.answered:,}, {rate:.0f} a second, {dict(tally.statuses)}")
    print(f"subsets        {len(tally.subsets)}: {dict(tally.subsets)}")
    print(f"wrong          {warm.wrong + tally.wrong} {warm.first_wrong or tally.first_wrong}")
    p50, p99 = (1000 * value for value in np.percentile(tally.times, (50, 99)))
    print(f"times          p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {tally.slowest:.2f} s: {tally.slowest_timing}")
    print(f"processor      the workers had it for {ran:.0f} s and waited for it, taken by others, for {waited:.0f} s")
    print(f"memory         {memory / 2**20:.0f} MiB -> {growth * memory / 2**20:.0f} MiB, {100 * (growth - 1):+.1f} %")
    print(f"descriptors    {files} -> {files + more_files}")
    checks = {
        "wrong answers": warm.wrong + tally.wrong > 0,
        "5xx but 503 and 504": warm.failures + tally.failures > 0,
        "connections that ended without an answer": warm.cut + tally.cut > 0,
        "subsets that were never answered": len(tally.subsets) < len({question.subset for question in asked}),
        "memory that grows by more than 5 %": growth > GROWTH,
        "file descriptors that grow": more_files > 0,
    }
    return [what for what, bad in checks.items() if bad]


def main() -> None:
    """Run from the command line; ends with 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/digits"))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copytree(options.model, Path(folder, "model"))  # of its own: nobody trains it anew meanwhile
        with serving(model, options.workers) as service:
            faults = soak(service, model, options.seconds, options.clients)
    print(f"VERDICT soak   {'FAILED: ' + ', '.join(faults) if faults else 'passed'}")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
