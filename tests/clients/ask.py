"""Ask a service through the Python client that openapi-python-client generated, with every subset of the modalities.

Runs with the generator's own interpreter: python ask.py ADDRESS FOLDER_OF_THE_CLIENT SAMPLE.json; prints the answers.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any


def main(address: str, folder: str, sample_file: str) -> None:
    """Ask, and print {way: {subset: answer}} as JSON."""
    sys.path.insert(0, str(Path(folder).parent))
    from generated import Client
    from generated.api.about_the_model import model
    from generated.api.ask_the_model import embed, predict, predict_batch
    from generated.models import (
        EmbedFilesForm,
        EmbedJsonSample,
        PredictBatchBatch,
        PredictBatchBatchBatchSample,
        PredictFilesForm,
        PredictJsonSample,
    )
    from generated.types import File

    sample: dict[str, str] = json.loads(Path(sample_file).read_text(encoding="utf-8"))
    client = Client(base_url=address)
    described = model.sync(client=client)
    files = {name for name, each in described.modalities.additional_properties.items() if each.sent_as == "file"}

    def in_form(name: str) -> Any:
        return File(io.BytesIO(base64.b64decode(sample[name])), name) if name in files else sample[name]

    answers: dict[str, dict[str, Any]] = {"form": {}, "json": {}, "batch": {}, "embed": {}, "options": {}}
    for size in range(1, len(sample) + 1):
        for names in itertools.combinations(sample, size):
            form = {name: in_form(name) for name in names}
            values = {name: sample[name] for name in names}
            key = "+".join(names)
            answers["form"][key] = predict.sync(client=client, body=PredictFilesForm(**form)).to_dict()
            answers["json"][key] = predict.sync(client=client, body=PredictJsonSample(**values)).to_dict()
            batch = PredictBatchBatch(samples=[PredictBatchBatchBatchSample(**values)])
            answers["batch"][key] = predict_batch.sync(client=client, body=batch).results[0].to_dict()
            form = {name: in_form(name) for name in names}
            answers["embed"][key] = embed.sync(client=client, body=EmbedFilesForm(**form)).to_dict()
            assert embed.sync(client=client, body=EmbedJsonSample(**values)).to_dict() == answers["embed"][key]
    text = next(name for name in sample if name not in files)
    options = {"top_k": 2, "coverage": 0.9}
    answers["options"]["url"] = predict.sync(
        client=client, body=PredictJsonSample(**{text: sample[text]}), **options
    ).to_dict()
    answers["options"]["form"] = predict.sync(
        client=client, body=PredictFilesForm(**{text: sample[text]}, **options)
    ).to_dict()
    bad, good = PredictBatchBatchBatchSample(**{text: " "}), PredictBatchBatchBatchSample(**{text: sample[text]})
    results = predict_batch.sync(client=client, body=PredictBatchBatch(samples=[bad, good])).results
    assert (results[0].problem.field, results[1].label) == (text, answers["form"][text]["label"])
    answers["problem"] = {"missing": predict.sync(client=client, body=PredictJsonSample(top_k=1)).to_dict()}
    print(json.dumps(answers))


main(*sys.argv[1:])
