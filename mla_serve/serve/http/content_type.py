"""Read the Content-Type header of a body, or of one part of a form."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import functools
import re

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from mla_serve.errors import UnsupportedFormat

FIELD = "content-type"  # the field that errors name
JSON = "application/json"
MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
# Only these: among the other codecs of Python are slow ones (idna) and some that are no character set (unicode_escape).
CHARSETS = re.compile(
    r"utf-?8|utf-?(?:16|32)(?:-?[bl]e)?|(?:us-)?ascii|iso-?8859-?(?:[1-9]|1[0-13-6])|latin-?1|(?:windows-|cp)125[0-8]"
    r"|koi8-[ru]|shift[_-]jis|euc-(?:jp|kr)|iso-2022-jp|gb2312|gbk|gb18030|big5",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class ContentType:
    """A media type in lower case, empty where none is given, and the two parameters that are read."""

    media_type: str = ""
    charset: str | None = None
    boundary: bytes = b""

    def codec(self, field: str = FIELD) -> str:
        """Return Python's name of the character set, UTF-8 where none is given.

        Raises: UnsupportedFormat, naming `field`, for a character set that is not read.
        """
        name = self.charset or "utf-8"
        with contextlib.suppress(LookupError):
            if CHARSETS.fullmatch(name):
                return codecs.lookup(name).name
        raise UnsupportedFormat(field, f"the character set {name[:40]!r} is not read; send UTF-8")

    @property
    def is_json(self) -> bool:
        """Whether it is JSON, or a format that is written in JSON."""
        return self.media_type == JSON or (
            self.media_type.startswith("application/") and self.media_type.endswith("+json")
        )

    @property
    def is_file(self) -> bool:
        """Whether a part of this type is a file even if it has no file name."""
        return bool(self.media_type) and not (
            self.media_type.startswith("text/") or self.media_type == URLENCODED or self.is_json
        )


@functools.lru_cache(maxsize=64)  # clients repeat their headers
def parse_content_type(header: bytes | str | None) -> ContentType:
    """Parse the value of a Content-Type header."""
    media_type, parameters = parse_options_header(header)
    charset = parameters.get(b"charset", b"").decode("latin-1") or None
    return ContentType(media_type.decode("latin-1"), charset, parameters.get(b"boundary", b""))


def body_content_type(request: Request) -> ContentType:
    """Return the content type of a request's body.

    Raises: UnsupportedFormat for a compressed body, since no limit would hold for its decompressed size.
    """
    encoding = request.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedFormat(
            "content-encoding", f"the body was sent as {encoding[:40]!r}; send it as it is, without Content-Encoding"
        )
    return parse_content_type(request.headers.get("content-type"))
