"""`make bench-memory`: memory, speed and decoding of training on tables that are larger than what should be held in memory.

Pictures (JPEG, 128x128) and recordings (WAV, 10 s at 8 kHz) are generated. For each kind: decode the table, train from the
cache and export, and do the same with two processes of torchrun. Training ends after an epoch or a minute, because its memory
does not grow with its steps: every batch is read from the cache in the same way. Peaks are compared with those of the same command on 64 rows.
RssAnon is what a process holds itself. RssFile are pages of files, most of them of the cache, which the system drops when
memory is needed elsewhere. Steps from the cache and from memory are timed in turns. At full size this takes 8 GB of disk, which
are freed afterwards. --kinds measures one kind at a time.

    python -m benchmarks.training.memory --scale 0.05
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from benchmarks.shared import machine_in_full, write_results
from mla_serve.console import console, main
from mla_serve.errors import ConfigError
from mla_serve.train.config import TrainConfig
from mla_serve.train.data.batches import training_batches
from mla_serve.train.data.samples import Samples
from mla_serve.train.plan import Plan, make_plan
from mla_serve.train.strategies import Strategy

ROWS = {"image": 100_000, "audio": 20_000}
CLASSES, EMPTY = 10, 64
RATE, SECONDS = 8000, 10
IN_MEMORY = 1000  # rows that the loop without a cache holds
VALIDATION, TEST = 1000, 200  # rows at most: each is answered many times after training
MINUTE = 60.0
STEPS, REPEATS = 5, 7
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """Measure memory and speed of training on large tables."""

    scale: float = 1.0
    """Part of the 100,000 pictures and 20,000 recordings to generate."""
    kinds: tuple[str, ...] = ("image", "audio")
    """Tables to measure."""
    out: Path = Path("benchmarks/training")
    """Folder that memory.json and .md are written to."""
    work: Path | None = None
    """Folder for the generated files and the runs, removed afterwards. Default: a new one in the temporary folder."""
    worker: tuple[str, ...] = ()
    """Used by the command itself."""


def run(config: MemoryConfig) -> None:
    """Measure, print and write."""
    if config.worker:
        print(json.dumps(WORKERS[config.worker[0]](Path(config.worker[1]), Path(config.worker[2]))))
        return
    work = Path(tempfile.mkdtemp(prefix="bench-memory-", dir=config.work))
    try:
        found: dict[str, Any] = {}
        for kind in config.kinds:
            found[kind] = measure(kind, max(4 * EMPTY, round(ROWS[kind] * config.scale)), work)
            write_results(config.out, "memory", found, report(found))  # each kind takes long: what is measured is kept
    finally:
        shutil.rmtree(work)
    console.print(report(found))


def measure(kind: str, rows: int, work: Path) -> dict[str, Any]:
    """Measure one table."""
    console.print(f"{kind}: generating {rows:,} files ...")
    data, empty, runs = generate(work / kind, kind, rows), generate(work / f"{kind}-empty", kind, EMPTY), work / "runs"
    found: dict[str, Any] = {"rows": rows, "decoding": watch("decoding", worker("decode", data, runs))}
    found["again"] = watch("reading again", worker("decode", data, runs))
    limit = MINUTE + 2 * found["again"]["plan_seconds"]  # reading counts
    found["empty"] = watch("training on 64 rows", train(empty, runs / "empty", limit))
    found["train"] = watch("training", train(data, runs, limit))
    before = cache_bytes(runs)
    found["torchrun"] = watch("two processes", train(data, runs, limit, processes=2))
    found["cache"] = {"bytes": cache_bytes(runs), "grown_by_two_processes": cache_bytes(runs) - before}
    found["steps"] = watch("steps", worker("steps", data, runs))
    shutil.rmtree(data)
    return found


def worker(name: str, data: Path, runs: Path) -> list[str]:
    """Return the command of a worker."""
    return [sys.executable, "-m", "benchmarks.training.memory", "--worker", name, str(data), str(runs)]


def train(data: Path, runs: Path, limit: float, processes: int = 1) -> list[str]:
    """Return the command that trains for one epoch, and no longer than `limit` seconds with reading."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    flags = [
        "--data",
        str(data),
        "--runs",
        str(runs),
        "--name",
        f"p{processes}",
        "--out",
        str(runs / f"bundle{processes}"),
    ]
    return [sys.executable, *several, "-m", "mla_serve.train", *flags, "--epochs", "1", "--time-limit", str(limit / 60)]


# ---- watching a command


def watch(title: str, command: Sequence[str]) -> dict[str, Any]:
    """Run a command and print how long it took; returns its time, the cores it kept busy, and the peaks of its processes in MB.

    Raises: ConfigError with its last words when it fails.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
        peaks: dict[str, float] = {}
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, ended))
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        sampler.join()
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise ConfigError(f"{' '.join(command)}: {said[-2000:]}")
    seconds = time.monotonic() - begun
    console.print(f"{title}: {seconds:.0f} s", style="dim")
    last = said.strip().splitlines()[-1:] or [""]
    own = json.loads(last[0]) if last[0].startswith("{") else {}
    return {"seconds": seconds, "cores": (usage.ru_utime + usage.ru_stime) / seconds, **peaks, **own}


def _sample(pid: int, peaks: dict[str, float], ended: threading.Event) -> None:
    """Keep the largest sums over a process and its children, and the largest anonymous memory of one process."""
    while not ended.wait(0.1):
        sizes = [found for one in _tree(pid) if (found := _sizes(one))]
        sums = {f"all_{key}": sum(size[key] for size in sizes) for key in ("RssAnon", "RssFile")}
        largest = {f"one_{key}": max((size[key] for size in sizes), default=0.0) for key in ("RssAnon", "RssFile")}
        for key, value in {**sums, **largest}.items():
            peaks[key] = max(peaks.get(key, 0.0), value)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _tree(int(child))


def _sizes(pid: int) -> dict[str, float]:
    with contextlib.suppress(OSError):
        lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return {
            words[0][:-1]: int(words[1]) / 1000 for words in lines if words and words[0] in ("RssAnon:", "RssFile:")
        }
    return {}


def cache_bytes(runs: Path) -> int:
    """Return the size of the decoded values."""
    return sum(path.stat().st_size for path in (runs / ".cache").rglob("*") if path.is_file())


# ---- workers


def decode(data: Path, runs: Path) -> dict[str, Any]:
    """Plan a run, which decodes the table or finds it in the cache; returns the time and the cores of that alone."""
    clock, busy = time.monotonic(), os.times()
    make_plan(TrainConfig(data=data, runs=runs))
    after, seconds = os.times(), time.monotonic() - clock
    used = sum(after[:4]) - sum(busy[:4])
    return {"plan_seconds": seconds, "plan_cores": used / seconds}


def steps(data: Path, runs: Path) -> dict[str, Any]:
    """Time steps from the cache and from memory in turns; returns the samples per second of both and their ratio."""
    torch.set_num_threads(1)
    plan = make_plan(TrainConfig(data=data, runs=runs))
    stored = plan.samples("train")
    loops = {name: _steps(plan, samples) for name, samples in (("cache", stored), ("memory", in_memory(stored)))}
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(REPEATS + 1):
        for name, loop in loops.items():
            speeds[name].append(next(loop))
    ratios = [one / other for one, other in zip(speeds["cache"][1:], speeds["memory"][1:], strict=True)]
    return {name: statistics.median(each[1:]) for name, each in speeds.items()} | {"ratio": statistics.median(ratios)}


def in_memory(samples: Samples) -> Samples:
    """Read some rows into memory: the loop to compare with."""
    columns = {}
    for name, column in samples.columns.items():
        count = column.count[:IN_MEMORY]
        windows, payloads = column.windows[: int(count.sum())], column.payloads[:IN_MEMORY]
        columns[name] = dataclasses.replace(
            column, windows=windows, start=column.start[:IN_MEMORY], count=count, payloads=payloads
        )
    return Samples(samples.targets[:IN_MEMORY], columns)


def _steps(plan: Plan, samples: Samples) -> Iterator[float]:
    """Train; yields the samples per second of each block of steps."""
    strategy: Strategy = plan.build(0)
    for name, encoder in strategy.encoders.items():
        encoder.measure(samples.columns[name].windows[:256])
    size = plan.choices.settings.rows_per_step
    strategy.prepare(10_000, len(samples))
    strategy.train()
    generator = torch.Generator().manual_seed(0)
    while True:
        batches = training_batches(samples, size, generator, CPU, plan.choices.augment)
        for _ in range(max(1, len(samples) // size // STEPS)):  # whole blocks of an epoch
            begun, rows = time.perf_counter(), 0
            for batch in itertools.islice(batches, STEPS):
                strategy.step(batch)
                rows += len(batch.rows)
            yield rows / (time.perf_counter() - begun)


WORKERS = {"decode": decode, "steps": steps}


# ---- generated tables


def generate(folder: Path, kind: str, rows: int) -> Path:
    """Write files and their tables: a tenth for validation, 1000 rows at most, and 200 rows for test."""
    (folder / "files").mkdir(parents=True)
    starts = range(0, rows, 500)
    with ProcessPoolExecutor() as pool:
        list(pool.map(_write_files, *zip(*[(folder, kind, at, min(at + 500, rows)) for at in starts], strict=True)))
    val, test = min(VALIDATION, rows // 10), min(TEST, rows // 10)
    splits = {"train": range(val + test, rows), "val": range(val), "test": range(val, val + test)}
    for split, numbers in splits.items():
        lines = [json.dumps({"label": f"c{n % CLASSES}", kind: f"files/{n}"}) + "\n" for n in numbers]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder


def _write_files(folder: Path, kind: str, start: int, stop: int) -> None:
    for number in range(start, stop):
        (folder / "files" / str(number)).write_bytes(MAKE[kind](number))


def _picture(number: int) -> bytes:
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 200, (6, 6, 3), dtype=np.uint8)
    pixels[number % CLASSES % 6, :, number % 3] += 55
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((128, 128), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _recording(number: int) -> bytes:
    generator = np.random.default_rng(number)
    time_s = np.arange(RATE * SECONDS, dtype=np.float32) / RATE
    wave = 0.2 * np.sin(2 * np.pi * 200 * (1 + number % CLASSES) * time_s + generator.uniform(0, 6))
    wave += 0.05 * generator.standard_normal(len(wave), np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.astype(np.float32), RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


MAKE = {"image": _picture, "audio": _recording}


def report(found: dict[str, Any]) -> str:
    """Write the page."""
    lines = [
        "# Memory and speed of training on large tables",
        "",
        f"`make bench-memory` on {machine_in_full()}. MB are the peaks of the process with the most memory. "
        "*above empty*: RssAnon beyond that of the same command on 64 rows. Training ends after an epoch or a minute: every batch is "
        "read from the cache in the same way, so memory does not grow with the steps. A tenth of the rows is for validation, "
        "1,000 at most.",
        "",
        "| table | rows | decoding, s | cores busy | again, s | cache, GB | RssAnon, MB | above empty, MB | RssFile, MB "
        "| two processes: above empty, MB | cache grown, MB | samples/s from cache | from memory | ratio |",
        "|---" * 14 + "|",
    ]
    for kind, one in found.items():
        empty, trained, both = one["empty"], one["train"], one["torchrun"]
        cells = (
            f"{one['rows']:,}",
            f"{one['decoding']['plan_seconds']:.0f}",
            f"{one['decoding']['plan_cores']:.2f}",
            f"{one['again']['plan_seconds']:.0f}",
            f"{one['cache']['bytes'] / 1e9:.2f}",
            f"{trained['one_RssAnon']:.0f}",
            f"{trained['one_RssAnon'] - empty['one_RssAnon']:.0f}",
            f"{trained['one_RssFile']:.0f}",
            f"{both['one_RssAnon'] - empty['one_RssAnon']:.0f}",
            f"{one['cache']['grown_by_two_processes'] / 1e6:.1f}",
            f"{one['steps']['cache']:.0f}",
            f"{one['steps']['memory']:.0f}",
            f"{one['steps']['ratio']:.2f}",
        )
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(run, MemoryConfig)
