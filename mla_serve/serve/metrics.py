"""The service's own Prometheus metrics, beside those of BentoML. No label holds anything that a client sent."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge


class Meters:
    """Counters of one worker; BentoML's /metrics adds the workers up."""

    def __init__(self) -> None:
        """Register them: once per process."""
        # Only a worker may import it, and late: BentoML tells it by a variable where the workers' numbers meet.
        from prometheus_client import Counter, Gauge

        self.refused: Counter = Counter("mla_refused", "Requests answered with 503, by what was full.", ["full"])
        self.dropped: Counter = Counter("mla_dropped", "Requests whose client left before the answer.")
        self.updates: Counter = Counter("mla_model_updates", "New bundles that were found, by result.", ["result"])
        self.update_refused: Gauge = Gauge(
            "mla_model_update_refused",
            "1 while MLA_MODEL holds a bundle that cannot be used and the one before it is served.",
            multiprocess_mode="mostrecent",
        )


@functools.cache
def meters() -> Meters:
    """Return this process's meters."""
    return Meters()
