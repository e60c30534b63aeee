"""Ask a service of columns through the Python client that openapi-python-client generated.

Runs with the generator's own interpreter: python ask_columns.py ADDRESS FOLDER_OF_THE_CLIENT; prints the answers.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path


def main(address: str, folder: str) -> None:
    """Send the same cells as a form, as JSON and in a batch, and print {way: answer} as JSON."""
    sys.path.insert(0, str(Path(folder).parent))
    import generated.models as models
    from generated import Client
    from generated.api.about_the_model import model
    from generated.api.ask_the_model import predict, predict_batch

    client = Client(base_url=address)
    cells = {"price": 12.5, "colour": "red", "size": None, "listed": datetime.date(2023, 6, 1), "in_stock": True}
    form = models.PredictFilesForm(columns=models.PredictFilesFormColumns(**cells))
    sample = models.PredictJsonSample(columns=models.PredictJsonSampleColumns(**cells))
    item = models.PredictBatchBatchBatchSample(columns=models.PredictBatchBatchBatchSampleColumns(**cells))
    answers = {
        "form": predict.sync(client=client, body=form).to_dict(),
        "json": predict.sync(client=client, body=sample).to_dict(),
        "batch": predict_batch.sync(client=client, body=models.PredictBatchBatch(samples=[item])).results[0].to_dict(),
    }
    described = model.sync(client=client).modalities.additional_properties["columns"]
    assert [column.name for column in described.columns] == ["price", "colour", "size", "listed", "in stock"]
    print(json.dumps(answers))


main(*sys.argv[1:])
