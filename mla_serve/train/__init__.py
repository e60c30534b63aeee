"""The training wing: torch lives here and in export/, nowhere else."""
