"""`mla-serve ask`: one answer from a running service."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from mla_serve.client import Client
from mla_serve.client.exchange import DEFAULT_URL
from mla_serve.commands.sample_flags import SampleFlags, read_sample
from mla_serve.console import console

KEY = "MLA_API_KEY"


@dataclasses.dataclass(frozen=True)
class AskConfig(SampleFlags):
    """Classify one sample through a running service. A key is read from MLA_API_KEY, never from the command line."""

    url: str = DEFAULT_URL
    """Address of the service."""
    timeout: float = 30.0
    """Seconds to wait for one attempt."""


def run(config: AskConfig) -> None:
    """Ask and print."""
    with Client(config.url, api_key=os.environ.get(KEY), timeout=config.timeout) as client:
        sent_as = {name: modality.sent_as for name, modality in client.model().modalities.items()}
        sample: dict[str, Any] = {**read_sample(config, sent_as)}
        answer = client.predict(top_k=config.top_k, fusion=config.fusion, coverage=config.coverage, **sample)
    if config.json:
        json.dump(answer.to_dict(), sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        console.print(answer)
