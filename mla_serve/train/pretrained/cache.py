"""Features of frozen encoders on disk, by the hash of the content, so that each is computed once.

A part of the cache is two arrays, NAME.keys.npy (n, 32) and NAME.features.npy (n, size), where NAME is the hash of the
keys. The keys are written last, so a part that has keys is complete. Features stay on disk until they are needed.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mla_serve.fusion.formula import Array

log = logging.getLogger("mla_serve")


class FeatureCache:
    """Features (size,) float32 of one encoder, by sha256."""

    def __init__(self, folder: Path, size: int) -> None:
        """Use the folder of this encoder, which need not exist yet."""
        self.folder, self.size = folder, size
        self._parts: list[Array] = []
        self._at: dict[bytes, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.keys.npy")):
            self._open(path)

    def __contains__(self, key: bytes) -> bool:
        """Whether the features of a content are stored."""
        return key in self._at

    def __len__(self) -> int:
        """Return the number of contents."""
        return len(self._at)

    def get(self, keys: Sequence[bytes]) -> Array:
        """Return the features of stored contents: (len(keys), size)."""
        found = np.empty((len(keys), self.size), np.float32)
        for row, key in enumerate(keys):
            part, at = self._at[key]
            found[row] = self._parts[part][at]
        return found

    def put(self, keys: Sequence[bytes], features: Array) -> None:
        """Store features (len(keys), size)."""
        if not keys:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        digests = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        stem = hashlib.sha256(digests.tobytes()).hexdigest()[:32]
        _write(self.folder / f"{stem}.features.npy", features.astype(np.float32))
        _write(self.folder / f"{stem}.keys.npy", digests)
        self._open(self.folder / f"{stem}.keys.npy")

    def _open(self, path: Path) -> None:
        """Open a part. A damaged one is ignored, and its features are computed again when they are needed."""
        try:
            digests = np.load(path)
            features = np.load(path.with_name(path.name.replace(".keys.", ".features.")), mmap_mode="r")
            if digests.shape != (len(features), 32) or features.shape[1:] != (self.size,):
                raise ValueError(f"shapes {digests.shape} and {features.shape}")
        except (OSError, ValueError, EOFError) as error:
            log.warning("%s: ignored, it is damaged (%s); its features are computed again", path, error)
            return
        for at, digest in enumerate(digests):
            self._at[digest.tobytes()] = (len(self._parts), at)
        self._parts.append(features)


def _write(path: Path, content: Array) -> None:
    """Write an array to a temporary name that no other process uses, then rename it."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp.npy")
    np.save(temporary, content)
    temporary.replace(path)
