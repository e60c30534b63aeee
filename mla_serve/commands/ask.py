"""`mla-serve ask`: answer one sample through a running service."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from mla_serve.client import Client
from mla_serve.client.exchange import DEFAULT_URL
from mla_serve.commands.sample_flags import COLUMNS, SampleFlags, read_sample
from mla_serve.console import console

KEY_VARIABLE = "MLA_API_KEY"


@dataclasses.dataclass(frozen=True)
class AskConfig(SampleFlags):
    """Answer one sample through a running service. The API key is read from the variable MLA_API_KEY."""

    url: str = DEFAULT_URL
    """Address of the service."""
    timeout: float = 30.0
    """Seconds that one attempt may take."""


def run(config: AskConfig) -> None:
    """Send the sample and print the answer."""
    with Client(config.url, api_key=os.environ.get(KEY_VARIABLE), timeout=config.timeout) as client:
        modalities = client.model().modalities
        sent_as = {name: modality.sent_as for name, modality in modalities.items()}
        known = [column.name for column in modalities[COLUMNS].columns] if COLUMNS in modalities else []
        sample: dict[str, Any] = {**read_sample(config, sent_as, known)}
        answer = client.predict(top_k=config.top_k, fusion=config.fusion, coverage=config.coverage, **sample)
    if config.json:
        json.dump(answer.to_dict(), sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        console.print(answer)
