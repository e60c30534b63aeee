"""The folders of one running service: the metrics files of its workers, and a copy of the bundle that they serve.

By default all BentoML services of a user share one folder for metrics, which the next service that starts empties. So
the first process of a service chooses folders of its own, and its workers inherit the names in environment variables.
"""

from __future__ import annotations

import atexit
import os
import shutil
from pathlib import Path

from mla_serve.serve.metrics import is_alive

RUN_FOLDER = "_MLA_SERVE_RUN_FOLDER"
RUN_METRICS = "_MLA_SERVE_RUN_METRICS"
METRICS = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client; where the operator sets it, metrics lie below it
SERVICES = "metrics"  # folder in BENTOML_HOME, with one folder for each service that runs


def choose_folders() -> None:
    """Choose the folders of this service, or use those of its main process. Call it before prometheus_client is imported."""
    if Path(os.environ.get(RUN_FOLDER, "")).name == str(os.getppid()):  # a worker: BentoML has set its own folder
        os.environ[METRICS] = os.environ[RUN_METRICS]
        return
    name, services = str(os.getpid()), _home() / SERVICES
    os.environ[RUN_FOLDER] = str(services / name)
    os.environ[RUN_METRICS] = str(Path(os.environ.get(METRICS) or services) / name)


def make_folders() -> None:
    """Make them empty, remove those of services that were killed, and these when this process ends."""
    for variable in (RUN_FOLDER, RUN_METRICS):
        own = Path(os.environ[variable])
        shutil.rmtree(own, ignore_errors=True)  # in a container every main process has the number 1
        own.mkdir(parents=True, exist_ok=True)
        for folder in own.parent.glob("[0-9]*"):
            if not is_alive(int(folder.name)):
                shutil.rmtree(folder, ignore_errors=True)
        atexit.register(shutil.rmtree, own, ignore_errors=True)


def run_folder() -> Path | None:
    """Return the folder of the service that this process belongs to; None outside of one."""
    folder = Path(os.environ.get(RUN_FOLDER, ""))
    return folder if folder.is_absolute() and folder.is_dir() else None


def _home() -> Path:
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml").absolute()
