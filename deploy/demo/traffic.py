"""Requests as clients send them, and as they send them when their microphone is muted or pulled out."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import soundfile

from mla_serve.bundle.manifest import Bundle
from mla_serve.commands.tune_load import Connection, form_request
from mla_serve.inputs import Payload
from mla_serve.table import read_table

Sample = Mapping[str, Payload]
COMPLETE = 0.6  # of the samples have everything; the others any subset
SHORTEST = 100  # bytes of a sound that is whole
BROKEN = 0.02  # of the files are cut off


def samples_of(model: Path, data: Path | None, count: int = 200) -> list[Sample]:
    """Take samples of a data set's test split, or the golden ones of a bundle."""
    if data is None:
        return list(Bundle.load(model).golden_samples())
    rows = random.Random(0).sample(list(read_table(data).splits["test"]), count)
    return [
        {name: each.read_bytes() if isinstance(each, Path) else each for name, each in row.values.items()}
        for row in rows
    ]


def muted(sample: Sample, name: str) -> Sample:
    """Put zeros in the place of a recording, as long as it was."""
    payload = sample.get(name)
    if not isinstance(payload, bytes) or len(payload) < SHORTEST:
        return sample
    samples, rate = soundfile.read(io.BytesIO(payload))
    silence = io.BytesIO()
    soundfile.write(silence, 0 * samples, rate, format="WAV")
    return {**sample, name: silence.getvalue()}


def absent(sample: Sample, name: str) -> Sample:
    """Leave a recording out; a sample of nothing else stays at home."""
    return {each: payload for each, payload in sample.items() if each != name}


def mixed(samples: Sequence[Sample], seed: int = 0) -> Iterator[Sample]:
    """Give samples without end: most complete, the others any subset."""
    chance = random.Random(seed)
    for sample in itertools.cycle(samples):
        names = list(sample)
        kept = names if chance.random() < COMPLETE else chance.sample(names, chance.randint(1, len(names)))
        sent = {name: sample[name] for name in names if name in kept}
        yield {name: _cut(value) if chance.random() < BROKEN else value for name, value in sent.items()}


def _cut(payload: Payload) -> Payload:
    return payload[:20] if isinstance(payload, bytes) else payload


async def send(
    port: int, samples: Iterator[Sample], change: Callable[[Sample], Sample], rate: float, seconds: float
) -> int:
    """Send `rate` samples a second; returns how many were answered with 200."""
    loop, good = asyncio.get_running_loop(), 0
    connection = await Connection.open(port)
    end = loop.time() + seconds
    for at in itertools.count():
        due = end - seconds + at / rate
        if max(due, loop.time()) >= end:
            break
        await asyncio.sleep(max(0.0, due - loop.time()))
        if sample := change(next(samples)):
            good += (await connection.ask(form_request(sample))).status == 200
    connection.close()
    return good
