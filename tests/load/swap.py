"""Models that change under load, and disks that are full."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mla_serve.bundle.manifest import Bundle, write_manifest
from mla_serve.commands.tune_load import get
from tests.load.clients import Question, load, questions
from tests.load.part import CLIENTS, Background, eventually, faults, fill, small_disk
from tests.load.service import Service, serving

PATHS = ("/", "/docs", "/model", "/samples", "/openapi.json", "/nothing", "/metrics", "/readyz", "/livez")
SERVICE_DISK = 64 * 2**20


def swap(model: Path, seconds: float) -> list[str]:
    """Swap models under load; then a half-copied one, and one whose disk was full before it was copied."""
    with tempfile.TemporaryDirectory() as folder:
        first, second, link = Path(folder, "first"), Path(folder, "second"), Path(folder, "current")
        shutil.copytree(model, first)
        _rename(shutil.copytree(model, second))
        _point(link, first)
        asked = questions(first, second)
        with serving(link) as service:
            background = Background(service, asked, seconds + 30)
            harm = [_taken(service, link, second, asked), _half_copied(service, link, first)]
            harm += [_disk_full(service, link, second), _loop(service, link), _taken(service, link, first, asked)]
            tally = background.end()
    print(f"swap           {tally.answered:,} answers by {len(tally.models)} models, {tally.cut} connections cut")
    return faults(
        tally,
        requests_dropped=tally.cut,
        a_model_that_was_not_taken_up=len(tally.models) < 2,
        **{fault: True for fault in harm if fault},
    )


def disk(model: Path, seconds: float) -> list[str]:
    """Fill the disk of everything that the service writes: it answers on, and so do workers that begin then."""
    asked = questions(model)
    try:
        with small_disk(SERVICE_DISK) as folder, serving(model, folder=folder) as service:
            before = asyncio.run(load(service.port, asked, 3, CLIENTS))
            full = fill(folder)
            together = asyncio.run(load(service.port, asked, seconds, CLIENTS))
            workers = {worker.pid for worker in service.workers()}
            answers = [_status(service, path) for path in PATHS * 4]
            died = workers != {worker.pid for worker in service.workers()}
            for worker in service.workers():
                worker.kill()
            back = eventually(service.is_ready, 60)
            time.sleep(2)  # the other one
            replaced = asyncio.run(load(service.port, asked, seconds, CLIENTS))
            full.unlink()
            after = asyncio.run(load(service.port, asked, 3, CLIENTS))
    except PermissionError as error:
        print(f"disk           not done: {error}; tests/serve/bento/test_reserved.py does it on a small scale")
        return []
    print(f"disk           {together.answered:,} answers with a full disk, {replaced.answered:,} by workers born to it")
    return faults(
        before,
        together,
        replaced,
        after,
        connections_cut=before.cut + together.cut + replaced.cut + after.cut,
        workers_that_died=died,
        no_new_worker_within_60_s=not back,
        paths_that_failed=[status for status in answers if status not in (200, 404)],
    )


def _status(service: Service, path: str) -> int:
    try:
        return get(service.port, path)[0]
    except OSError:
        return 0


def _point(link: Path, target: Path) -> None:
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def _rename(folder: Path) -> None:
    """Make another model of the same graphs: a manifest of another hash."""
    manifest = Bundle.load(folder).manifest.model_copy(update={"created": "2000-01-01T00:00:00Z"})
    (folder / "manifest.json").unlink()
    write_manifest(folder, manifest)


def _served(service: Service) -> tuple[set[str], list[object]]:
    """Ask /model often enough to meet every worker: the hashes served, the refusals shown."""
    replies = [json.loads(get(service.port, "/model")[1]) for _ in range(12)]
    return {reply["sha256"] for reply in replies}, [reply["update_refused"] for reply in replies]


def _taken(service: Service, link: Path, target: Path, asked: Sequence[Question]) -> str:
    _point(link, target)
    wanted = {Bundle.load(target).manifest.sha256}
    assert wanted <= set(asked[0].answers)
    taken = eventually(lambda: _served(service) == (wanted, [None] * 12))
    return "" if taken else f"{target.name} was not taken up by all"


def _refused(service: Service, link: Path, target: Path) -> bool:
    """Point the link at something bad; whether every worker refuses that, and serves what it served before."""
    before, reasons = _served(service)
    _point(link, target)
    refused = eventually(lambda: all(reason not in (None, *reasons) for reason in _served(service)[1]))
    return refused and _served(service)[0] == before


def _half_copied(service: Service, link: Path, source: Path) -> str:
    half = link.with_name("half")
    half.mkdir()
    shutil.copy(source / "manifest.json", half)
    return "" if _refused(service, link, half) else "a half-copied bundle was not refused by all"


def _disk_full(service: Service, link: Path, source: Path) -> str:
    """Copy to a disk that has room for half of the bundle; without root, in a process that may write so much."""
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    try:
        with small_disk(size // 2) as folder:
            return _copied_in_part(service, link, source, folder / "full", errno.ENOSPC)
    except PermissionError:
        return _copied_in_part(service, link, source, link.with_name("full"), errno.EFBIG)


def _copied_in_part(service: Service, link: Path, source: Path, target: Path, expected: int) -> str:
    largest = max(path.stat().st_size for path in source.rglob("*") if path.is_file())
    limit = f"ulimit -f {largest // 2048}; " if expected == errno.EFBIG else ""
    copied = subprocess.run(["bash", "-c", f'{limit}cp -r "$0" "$1"', source, target], capture_output=True, check=False)
    assert copied.returncode, "the copy was to fail"
    time.sleep(0.1)
    return "" if _refused(service, link, target) else "a bundle whose disk was full was not refused by all"


def _loop(service: Service, link: Path) -> str:
    """Point the link at one that points back: there is no bundle at all."""
    back = link.with_name("back")
    back.symlink_to(link)
    return "" if _refused(service, link, back) else "a link that goes round in a circle was not refused by all"
