"""Who may come in, and what a browser may do with what goes out: API keys, CORS, security headers."""

from __future__ import annotations

import errno
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mla_serve.errors import ConfigError, MlaServeError
from mla_serve.serve.metrics import meters
from mla_serve.serve.problems import Unauthorised, Unavailable, problem_response

log = logging.getLogger("mla_serve")
LOOK_S = 1.0
OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/", "/docs"})  # the same for everybody
OPEN_FOLDERS = ("/web/", "/docs/", "/problems/")  # what the pages are made of, and what a 401 means
SHORTEST_KEY = 16
ORIGIN = re.compile(r"https?://[^/\s,*?#@]+|\*")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
# Pages have no script and no style in them, so none that stands in one is ever run.
CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)


class Keys:
    """The keys that open the service. Only their hashes are kept."""

    usable = True
    """False while it is not known which keys are valid."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Accept any of these."""
        self._digests = _digests(keys)

    def know(self, key: bytes) -> bool:
        """Whether a key is one of these; takes as long whichever it is, and if it is none."""
        digest = hashlib.sha256(key).digest()
        found = [hmac.compare_digest(digest, each) for each in self._digests]
        return any(found)


class KeysFile(Keys):
    """The keys of a file, which is read again every LOOK_S seconds while there are requests.

    While the file is empty, gone, damaged or cannot be read, no key is known: whoever takes a key away can rely on it.
    """

    def __init__(self, path: Path, *, must_be_usable: bool = True) -> None:
        """Read the file.

        Args: must_be_usable, False to begin without any key where the file cannot be used now.
        Raises: ConfigError.
        """
        self._path = path
        self._look_at = time.monotonic() + LOOK_S
        super().__init__(_read_keys(path) if must_be_usable else [])
        if not must_be_usable:
            self.look()

    def know(self, key: bytes) -> bool:
        """Look at the file, if it is time to, and then for the key."""
        if time.monotonic() > self._look_at:
            self.look()
        return super().know(key)

    def look(self) -> None:
        """Read the file again. It is not asked whether it has changed: a clock is too coarse to tell."""
        self._look_at = time.monotonic() + LOOK_S
        try:
            digests = _digests(_read_keys(self._path))
        except ConfigError as error:
            if self.usable:
                log.error("no key is valid until the file of keys can be used again: %a", str(error))
                meters().keys_closed.inc()
            self.usable, self._digests = False, []
            return
        if digests != self._digests:
            log.info("the keys were read again: there are %d", len(digests))
        self.usable, self._digests = True, digests


class Guard:
    """Answer 401 to whoever sends no known key, 503 while none is known, but for health and the pages themselves."""

    def __init__(self, app: ASGIApp, keys: Keys, paths: Collection[str] = ()) -> None:
        """Wrap an application; guard these paths of it, or all when there are none."""
        self.app = app
        self.keys = keys
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, if it may come in."""
        if scope["type"] == "lifespan" or self._is_open(scope["path"]) or self.keys.know(_bearer(scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            error: MlaServeError = Unauthorised("send a key that the operator gave you: Authorization: Bearer KEY")
            if not self.keys.usable:
                error = Unavailable("the service cannot read its keys and lets nobody in; its operator must mend that")
            await problem_response(error, {"Connection": "close"})(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or bool(self.paths and path not in self.paths)


class SecurityHeaders:
    """Put the headers on every answer that keep a browser from doing what nobody meant."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_security_headers(message["headers"])]}
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def parse_origins(text: str) -> list[str]:
    """Split MLA_CORS_ORIGINS.

    Raises: ConfigError for what is no origin.
    """
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(f"MLA_CORS_ORIGINS: {origin!r} is no origin; write https://example.org, without a path")
    return origins


def _security_headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    is_page = any(name == b"content-type" and value.startswith(b"text/html") for name, value in given)
    return [*HEADERS, CONTENT_SECURITY_POLICY] if is_page else HEADERS


def _read_keys(path: Path) -> list[str]:
    """Read a file of keys: one per line, empty lines and those that start with # left out.

    Raises: ConfigError, which quotes no key.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no plain file")  # reading a pipe would not come to an end
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"  # that of UnicodeDecodeError quotes the file
        raise ConfigError(f"MLA_API_KEYS_FILE={str(path)!r}: cannot be read ({reason}); one key per line") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or any(len(key) < SHORTEST_KEY or not key.isascii() for key in keys):
        raise ConfigError(
            f"MLA_API_KEYS_FILE={str(path)!r}: expected one key per line, each of {SHORTEST_KEY} ASCII characters "
            "or more; make one with: openssl rand -hex 24"
        )
    return keys


def _digests(keys: Sequence[str]) -> list[bytes]:
    return [hashlib.sha256(key.encode()).digest() for key in keys]


def _bearer(scope: Scope) -> bytes:
    """Return the key of a request, empty when there is none."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            key: bytes = value[7:].strip()
            return key
    return b""
