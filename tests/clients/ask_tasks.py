"""Ask a service for one answer through the Python client that openapi-python-client generated, with a coverage.

Runs with the generator's own interpreter: python ask_tasks.py ADDRESS FOLDER_OF_THE_CLIENT; prints the answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(address: str, folder: str) -> None:
    """Ask, and print the answer as the client read it."""
    sys.path.insert(0, str(Path(folder).parent))
    from generated import Client
    from generated.api.ask_the_model import predict
    from generated.models import PredictJsonSample

    answer = predict.sync(client=Client(base_url=address), body=PredictJsonSample(text="abc", coverage=0.9))
    print(json.dumps(answer.to_dict()))


main(*sys.argv[1:])
