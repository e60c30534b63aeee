"""The names of splits."""

from __future__ import annotations

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "eval": "val",
    "testing": "test",
}
"""Other common names of splits -> the names used here."""


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, such as val for "Validation"; None for any other name."""
    plain = name.strip().lower()
    return plain if plain in SPLITS else SPLIT_ALIASES.get(plain)
