"""Open the predictor that the settings name, verify it on this machine, and keep a copy of its bundle for later workers.

`Predictor.verify` in bundle/predictor.py replays the golden samples.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mla_serve.bundle.manifest import MANIFEST, Bundle
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.runtime import check_runtime
from mla_serve.serve.settings import Settings

log = logging.getLogger("mla_serve")


def open_predictor(settings: Settings, providers: Sequence[str] | None = None, folder: Path | None = None) -> Predictor:
    """Load the bundle, open its graphs, replay its golden samples, then put the operator's limits on its inputs.

    The limits come last: a golden sample may exceed them, and must be read all the same.

    Args: providers, onnxruntime's names; those of the settings when left out, and so is the bundle's folder.
    Raises: ConfigError or BundleError, in one line that says what to do.
    """
    check_runtime()
    bundle = Bundle.load(folder or settings.model)
    chosen = settings.providers if providers is None else providers
    predictor = Predictor(bundle, chosen, settings.graph_threads, spin=settings.spin)
    predictor.verify()
    bundle.inputs = {name: settings.with_limits(reader) for name, reader in bundle.inputs.items()}
    return predictor


class KeptBundle:
    """A copy of the bundle that the workers serve, for a worker that starts while MLA_MODEL cannot be used.

    It is a copy and not a link, because a file of the bundle may be damaged in place.
    """

    def __init__(self, folder: Path | None) -> None:
        """Keep bundles in a folder; None keeps no bundle."""
        self._folder = folder

    def keep(self, bundle: Bundle) -> None:
        """Keep a verified bundle instead of the one before; where there is no room the log says so and nothing is kept."""
        if self._folder is None:
            return
        try:
            self._write(bundle, self._folder)
        except (OSError, ValueError) as error:
            log.warning("no copy of the bundle is kept for workers that start later: %a", str(error))

    def find(self) -> Path | None:
        """Return the folder of the bundle that was kept last; None when there is none."""
        found = (
            [path for path in self._folder.iterdir() if _is_kept(path)]
            if self._folder and self._folder.is_dir()
            else []
        )
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    def _write(self, bundle: Bundle, folder: Path) -> None:
        """Write the files that were verified, which MLA_MODEL may no longer contain."""
        target = folder / bundle.manifest.sha256
        if target.is_dir():
            os.utime(target)
            return
        folder.mkdir(parents=True, exist_ok=True)
        manifest = (bundle.folder / MANIFEST).read_bytes()
        if json.loads(manifest)["sha256"] != bundle.manifest.sha256:
            return  # it has been replaced meanwhile, and the next one is kept
        files = {MANIFEST: manifest} | {name: bundle.read(name) for name in bundle.manifest.files}
        needed = sum(map(len, files.values()))
        if shutil.disk_usage(folder).free < 2 * needed:
            raise OSError(f"it takes {needed / 2**20:.0f} MiB in {folder}; twice as much must be free")
        staging = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        try:
            for name, content in files.items():
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).write_bytes(content)
            if not target.is_dir():  # else another worker was faster
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for path in folder.iterdir():
            if _is_kept(path) and path != target:
                shutil.rmtree(path, ignore_errors=True)


def _is_kept(path: Path) -> bool:
    return not path.name.startswith(".")
