"""Classify tables of any size: `mla-serve predict --table rows.jsonl --out predictions.parquet`.

    table (.jsonl, .csv, .parquet) --slices.py--> slices of rows --score.py, one process per core--> a part each
    --parts.py--> one Parquet file

run      divides the work among processes and shows progress; on_ray does the same on a Ray cluster

Each slice of rows becomes a part, a Parquet file in OUT.parts. An interrupted command continues after the finished parts.
"""

LOCAL = "local"
"""Ray's name for a Ray that ray.init starts in this process."""
