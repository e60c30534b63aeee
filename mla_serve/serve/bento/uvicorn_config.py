"""Tell uvicorn which HTTP protocol to use.

Changes: `uvicorn.Config` is replaced by a subclass that adds options to those that BentoML passes.
Why: the limits of connection.py are in an HTTP protocol, and uvicorn takes that, and h11's limit, as options of its Config.
Public way that is missing: BentoML makes the Config itself and passes neither `http` nor `h11_max_incomplete_event_size` on.
Seen to work with BentoML 1.4.39 and 1.4.40, uvicorn 0.54.
Check: a Config of this class has loaded the protocol that it was given, before the worker's service starts.
"""

from __future__ import annotations

from typing import Any

import uvicorn

from mla_serve.serve.bento import patches


def apply(**options: Any) -> None:
    """Make every uvicorn server of this process use these options of uvicorn.Config."""
    base = uvicorn.Config
    patches.report("uvicorn_config", active=False)

    class Config(base):  # type: ignore[misc, valid-type]  # the base is a variable
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **{**named, **options})

        def load(self) -> None:
            super().load()
            patches.report("uvicorn_config", active=True)

    setattr(uvicorn, "Config", Config)  # noqa: B010 - mypy knows the class by this name
