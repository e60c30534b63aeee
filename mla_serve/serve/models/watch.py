"""Watch MLA_MODEL while it is served, and serve a new bundle once it is verified (hot swap).

If a new bundle cannot be used, the one before it is served on; /model, the log and a metric report it. Reading and
verifying happen in a thread. Each worker watches for itself, so for some seconds two models answer, each under its name.
A refused bundle is tried again after ever longer pauses: the disk or the memory may have failed, and not the bundle.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from mla_serve.bundle.manifest import MANIFEST
from mla_serve.bundle.predictor import Predictor
from mla_serve.errors import MlaServeError
from mla_serve.serve.metrics import meters
from mla_serve.serve.models.open_predictor import KeptBundle, open_predictor
from mla_serve.serve.problems import log_bug
from mla_serve.serve.settings import Settings

log = logging.getLogger("mla_serve")
AGAIN_S = 2.0  # until a refused bundle is tried again, and twice as long each time
LONGEST_AGAIN_S = 300.0
Fingerprint = tuple[str, tuple[tuple[str, int, int, int], ...]]


class Served(Protocol):
    """The part of CurrentModel that the watch uses."""

    @property
    def sha256(self) -> str:
        """The manifest's hash of the model that is served."""

    def serve(self, predictor: Predictor) -> None:
        """Serve this predictor from the next request on."""

    def set_refusal(self, refusal: dict[str, str] | None) -> None:
        """Set why the newest bundle is not served; None when it is served."""


class ModelWatch:
    """Look for new bundles: let `served` serve each that works, and report each that does not."""

    def __init__(
        self,
        settings: Settings,
        served: Served,
        kept: KeptBundle | None = None,
        seen: Fingerprint | None = None,
        failure: Exception | None = None,
    ) -> None:
        """Start from the bundle that is being served.

        Args: kept, gets a copy of each bundle that works; seen, the fingerprint of the folder before the served bundle was
        loaded, by default its fingerprint now; failure, why the kept copy is served instead of MLA_MODEL, if it is.
        """
        self._settings = settings
        self._served = served
        self._kept = kept or KeptBundle(None)
        self._seen = seen or fingerprint(settings.model)
        self._pause = AGAIN_S
        self._again_at = float("inf")
        self._reported = ""
        if failure is not None:
            self._refuse(failure)

    async def watch(self, seconds: float) -> None:
        """Look every `seconds`, workers not all at once; never returns."""
        while True:
            await asyncio.sleep(seconds * random.uniform(0.75, 1.25))
            try:
                await self.look()
            except Exception as error:  # the watch goes on, whatever happens
                log_bug(error)

    async def look(self) -> None:
        """Look once, and serve or refuse the bundle if it has changed."""
        seen = await asyncio.to_thread(fingerprint, self._settings.model)
        if seen == self._seen and time.monotonic() < self._again_at:
            return
        if seen != self._seen:
            self._pause, self._reported = AGAIN_S, ""
        self._seen = seen  # taken before the bundle is read, so that a change during that is seen at the next look
        try:
            predictor = await asyncio.to_thread(open_predictor, self._settings)
            self._accept(predictor)
        except Exception as error:  # whatever it is, the old model is served on
            self._refuse(error)
        else:
            self._again_at, self._reported = float("inf"), ""
            await asyncio.to_thread(self._kept.keep, predictor.bundle)

    def _refuse(self, error: Exception) -> None:
        """Try again later. Each reason is reported once for a bundle."""
        self._again_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_AGAIN_S)
        if repr(error) != self._reported:
            self._reported = repr(error)
            self._report(error)

    def _accept(self, predictor: Predictor) -> None:
        manifest = predictor.bundle.manifest
        if manifest.sha256 != self._served.sha256:
            self._served.serve(predictor)
            log.info("now serving %a, %s", manifest.name, manifest.sha256)
            meters().updates.labels("taken").inc()
        meters().update_refused.set(0)
        self._served.set_refusal(None)

    def _report(self, error: Exception) -> None:
        meters().updates.labels("refused").inc()
        meters().update_refused.set(1)
        if not isinstance(error, MlaServeError):
            log_bug(error)
        log.error("the new bundle is refused, the one before it is served on: %a", str(error))
        reason = str(error) if isinstance(error, MlaServeError) else "it cannot be loaded; the log says why"
        folder = str(_resolved(self._settings.model).parent) + os.sep
        given = str(self._settings.model.parent) + os.sep
        reason = reason.replace(folder, "").replace(given, "")  # clients need not know where the files are
        self._served.set_refusal({"time": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason})


def fingerprint(folder: Path) -> Fingerprint:
    """Return the folder's real path and the size, time and inode of each file in it, without reading the files.

    A folder without a manifest is not walked: MLA_MODEL might be a link to the root of a large disk.
    """
    resolved = _resolved(folder)
    found = []
    for root, _, names in os.walk(resolved) if (resolved / MANIFEST).is_file() else ():
        for name in names:
            path = Path(root, name)
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
    return str(resolved), tuple(sorted(found))


def _resolved(folder: Path) -> Path:
    """Follow links. A circle of links stays as it is; Path.resolve raises RuntimeError for it."""
    return Path(os.path.realpath(folder))
