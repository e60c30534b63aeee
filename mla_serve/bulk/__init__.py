"""Answer tables of any size: `mla-serve predict --table rows.jsonl --out predictions.parquet`.

    table --slices.py--> slices of rows --score.py, one process per core--> a part each --parts.py--> one file

run             divides the work among processes and shows progress; on_ray does the same on a Ray cluster
check_columns   whether the columns of the table are those of the model
own_columns     columns of the table that are carried over to the answers
writers         the answers as .parquet, .csv or .jsonl

Each slice of rows becomes a part, a Parquet file in OUT.parts. An interrupted command continues after the finished parts.
"""

LOCAL = "local"
"""Ray's name for a Ray that ray.init starts in this process."""
