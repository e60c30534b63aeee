"""Let BENTOML_DO_NOT_TRACK take effect under `bentoml serve`.

Changes: the cache of `bentoml._internal.utils.analytics.usage_stats.do_not_track` is cleared.
Why: importing mla_serve sets the variable (mla_serve/telemetry.py), but `bentoml serve` reads it before it imports the
service, and remembers the answer.
Public way that is missing: none can be taken from inside the service. From outside, set the variable before `bentoml serve`,
or pass `--do-not-track`; `mla-serve serve` does.
Seen to work with BentoML 1.4.39 and 1.4.40.
Check: afterwards the function answers what the variable says.
"""

from __future__ import annotations

import os

from mla_serve.serve.bento import patches


def apply() -> None:
    """Make BentoML read the variable again."""
    wanted = os.environ.get("BENTOML_DO_NOT_TRACK", "").lower() == "true"
    try:
        from bentoml._internal.utils.analytics import usage_stats

        usage_stats.do_not_track.cache_clear()
        active = usage_stats.do_not_track() == wanted
    except (ImportError, AttributeError):
        active = False
    patches.report("usage_reports", active=active)
