"""Which changes to BentoML and uvicorn took hold, for the log and for the metric `mla_patch_active`.

Each change reports here when it is in force. A worker publishes the result once it has started. The process that starts
the workers hands its own results to them in an environment variable.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import MutableMapping

from mla_serve.serve.metrics import meters

log = logging.getLogger("mla_serve")
VARIABLE = "_MLA_SERVE_PATCHES"
WITHOUT = {
    "accept_evenly": "one worker may get all connections that are kept alive, and the others none",
    "arbiter": "a dead worker is replaced after ten seconds instead of one (in a container not at all), a port that is taken "
    "ends the start with a traceback, and connections that come while the service ends are reset",
    "connection": "uvicorn's slower parser is used, and MLA_MAX_HEADERS, MLA_MAX_URL_BYTES, MLA_HEADER_TIMEOUT_S and "
    "MLA_MAX_CONNECTIONS have no effect: put a proxy in front of the service",
    "histograms": "each value of a metric is written by itself, at a tenth of the processor time of a small request",
    "usage_reports": "BentoML may send usage reports when started as `bentoml serve`: set BENTOML_DO_NOT_TRACK=True before",
    "uvicorn_config": "uvicorn's own HTTP protocol is used, which limits no head of a request and drops the body of a request "
    "with `Upgrade: h2c`: put a proxy in front of the service",
}
"""Patch -> what it means for the operator when it does not take hold."""


def report(name: str, *, active: bool) -> None:
    """Record whether a patch is in force, in this process and in those that it starts from now on."""
    known = _reported()
    known[name] = active
    os.environ[VARIABLE] = json.dumps(known)


def hand_on(environment: MutableMapping[str, str]) -> None:
    """Put what was reported so far into the environment of a process that is about to be started."""
    environment[VARIABLE] = os.environ.get(VARIABLE, "{}")


def publish() -> None:
    """Set the metric of each patch, and log a warning for each one that is not in force."""
    known = _reported()
    for name, consequence in WITHOUT.items():
        active = known.get(name, False)
        meters().patch.labels(name).set(active)
        if not active:
            log.warning(
                "the patch %s does not fit this version of BentoML, uvicorn or prometheus_client: %s", name, consequence
            )


def _reported() -> dict[str, bool]:
    known: dict[str, bool] = json.loads(os.environ.get(VARIABLE, "{}"))
    return known
