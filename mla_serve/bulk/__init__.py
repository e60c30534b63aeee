"""Score tables of any size: `mla-serve predict --table rows.jsonl --out predictions.parquet`.

    table (.jsonl, .csv, .parquet) --slices.py--> slices of rows --score.py, one process per core--> a part each
    --parts.py--> one Parquet file

The parts lie in OUT.parts until the last one is there, so that a scoring that was interrupted goes on where it was.
"""

LOCAL = "local"
"""Ray's own name for a Ray that is started here."""
