"""Decode the whole corpus and files made to fill a log. Run as a process whose output is measured.

python -m tests.hostile.printing
"""

from __future__ import annotations

import contextlib

from mla_serve.errors import InputError
from mla_serve.inputs import AudioInput, ImageInput, Input
from tests.hostile import bombs
from tests.hostile.corpus import build

READERS: dict[str, Input] = {"image": ImageInput(8, 8), "audio": AudioInput(1000, 500, 250)}


def main() -> None:
    """Decode all of it, and print nothing."""
    cases = [(case.kind, case.content) for case in build() if case.kind in READERS]
    cases += [("image", bombs.fax(compression, 1_000_000)) for compression in (2, 3, 4)]
    for kind, content in cases:
        with contextlib.suppress(InputError):
            READERS[kind].decode(content, kind)


if __name__ == "__main__":
    main()
