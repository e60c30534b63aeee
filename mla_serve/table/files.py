"""Cells that are files: paths inside the folder of the table, as people write them, or the content itself."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from mla_serve.inputs.media.formats import recognise
from mla_serve.table.faults import InvalidValue, abbreviate

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
)  # fmt: skip
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".m4a", ".aac", ".w64", ".rf64",
)  # fmt: skip
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
SUFFIXES = {"image": IMAGE_SUFFIXES, "audio": AUDIO_SUFFIXES, "video": VIDEO_SUFFIXES}
URL = re.compile(r"(https?|ftp|s3|gs)://", re.IGNORECASE)
LONGEST = 1000  # characters of a path


def is_url(text: str) -> bool:
    """Return whether it is a web address."""
    return bool(URL.match(text))


def kind_of_suffix(text: str) -> str | None:
    """Return image, audio or video by the suffix of a path; None for any other text."""
    if len(text) > LONGEST or "\n" in text:
        return None
    suffix = PurePosixPath(text.replace("\\", "/")).suffix.lower()
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def kind_of_content(content: bytes) -> str | None:
    """Return image or audio by the first bytes of a file; None for any other."""
    known = recognise(content)
    if known is None or bool(known.to_image) == bool(known.to_sound):
        return None
    return "image" if known.to_image else "audio"


def embedded_content(cell: object) -> bytes | None:
    """Return the content of a file that the table holds: bytes, or as Hugging Face data sets store it."""
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return content if isinstance(content, bytes) else None


def find_file(text: str, folder: Path, subfolder: str = "") -> Path | None:
    """Return the absolute path of a file of the folder; None if there is none, or if the path leaves the folder."""
    inside = _path_inside(text, folder)
    paths = [folder / subfolder / path for path in (inside, inside.replace("\\", "/"))] if inside is not None else []
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 (is_file may raise)


def read_file(cell: object, folder: Path, subfolder: str = "") -> Path | bytes:
    """Return the absolute path of a file inside the folder (links are followed), or its content if the cell holds it.

    Args: subfolder, of the folder, that paths are relative to.
    Raises: InvalidValue.
    """
    if (content := embedded_content(cell)) is not None:
        return content
    text = cell.get("path") if isinstance(cell, Mapping) else cell
    if not isinstance(text, str):
        raise InvalidValue(f"expected the path of a file inside the folder, got {abbreviate(cell)}; correct it")
    found = find_file(text, folder, subfolder)
    if found is None:
        raise InvalidValue(_why_not_found(text, folder))
    return found


def _why_not_found(text: str, folder: Path) -> str:
    given = abbreviate(text)
    if is_url(text.strip()):
        return f"{given} is a web address, and nothing is fetched; download the file and write its path"
    inside = _path_inside(text, folder)
    if inside is None:
        return f"the path {given} leaves the folder; expected one inside it; copy the file there"
    try:
        if stat.S_ISDIR((folder / inside).stat().st_mode):
            return f"{given} is a folder, expected a file; name the file in it, or leave the cell empty"
    except PermissionError:
        return f"{given} lies in a folder that may not be read; change its permissions"
    except (OSError, ValueError):
        if os.path.islink(folder / inside):  # noqa: PTH114 (is_symlink may raise)
            return f"{given} is a link that leads to no file; correct the link, or leave the cell empty"
    return f"no file {given} in the folder; put it there, or leave the cell empty"


def _path_inside(text: str, folder: Path) -> str | None:
    """Return the path relative to the folder; None if it leaves it. An absolute path may lie inside."""
    if text.lower().startswith("file://"):
        text = unquote(text[len("file://") :])
    if text.startswith("/"):
        text = os.path.relpath(text, folder) if text.startswith(f"{folder}/") else text
    given = PureWindowsPath(text)  # also knows what POSIX calls absolute
    return None if given.anchor or ".." in given.parts else text
