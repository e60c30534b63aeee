"""Who may call the service, and what a browser may do with its answers: API keys, CORS origins, security headers."""

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
RELOAD_S = 1.0
# Without a key: they reveal nothing of the model. So does the page at /model, see accept.py.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/", "/docs", "/report", "/card"})
OPEN_FOLDERS = ("/web/", "/problems/")  # the files of those pages, and the explanation of a 401
MIN_KEY_LENGTH = 16
ORIGIN = re.compile(r"https?://[^/\s,*?#@]+|\*")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=(), payment=(), usb=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
# Pages have no inline script or style, so the policy forbids both: what an attacker got into a page would not run.
# A page with a policy of its own (the report's) keeps that.
CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)


class Keys:
    """The API keys. Only their hashes are kept."""

    usable = True
    """False while the valid keys are not known."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Accept any of these keys."""
        self._digests = _digests(keys)

    def accepts(self, key: bytes) -> bool:
        """Whether a key is valid; takes the same time for every key, so that the time reveals nothing."""
        digest = hashlib.sha256(key).digest()
        found = [hmac.compare_digest(digest, each) for each in self._digests]
        return any(found)


class KeysFile(Keys):
    """The keys in a file, which is read again every RELOAD_S seconds while there are requests.

    While the file is empty, missing, damaged or unreadable, no key is valid: an operator who revokes a key by a mistaken
    edit must not find that the old keys still work.
    """

    def __init__(self, path: Path, *, must_be_usable: bool = True) -> None:
        """Read the file.

        Args: must_be_usable, False to start with no valid key when the file cannot be used now, instead of raising.
        Raises: ConfigError.
        """
        self._path = path
        self._reload_at = time.monotonic() + RELOAD_S
        super().__init__(_read_keys(path) if must_be_usable else [])
        if not must_be_usable:
            self.reload()

    def accepts(self, key: bytes) -> bool:
        """Whether a key is valid, after reading the file again if it is time to."""
        if time.monotonic() > self._reload_at:
            self.reload()
        return super().accepts(key)

    def reload(self) -> None:
        """Read the file again, changed or not: two changes within one tick of the file system's clock look like one."""
        self._reload_at = time.monotonic() + RELOAD_S
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
    """Answer 401 to a request without a valid key, and 503 while no key is valid; health and the pages need no key."""

    def __init__(self, app: ASGIApp, keys: Keys, paths: Collection[str] = ()) -> None:
        """Wrap an application. Args: paths, the paths to guard; all of them when empty."""
        self.app = app
        self.keys = keys
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its key is valid."""
        if scope["type"] == "lifespan" or self._is_open(scope["path"]) or self.keys.accepts(_bearer(scope)):
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
    """Add the headers that restrict what a browser does with an answer."""

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

    Raises: ConfigError for an entry that is no origin.
    """
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(f"MLA_CORS_ORIGINS: {origin!r} is no origin; write https://example.org, without a path")
    return origins


def _security_headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    known = {name: value for name, value in given if name in (b"content-type", CONTENT_SECURITY_POLICY[0])}
    is_page = known.get(b"content-type", b"").startswith(b"text/html")
    return [*HEADERS, CONTENT_SECURITY_POLICY] if is_page and CONTENT_SECURITY_POLICY[0] not in known else HEADERS


def _read_keys(path: Path) -> list[str]:
    """Read a file of keys: one per line; empty lines and lines that start with # are left out.

    Raises: ConfigError, without quoting a key.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no plain file")  # reading a pipe would never end
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            getattr(error, "strerror", None) or "it is not UTF-8"
        )  # a UnicodeDecodeError's own text quotes the file
        raise ConfigError(f"MLA_API_KEYS_FILE={str(path)!r}: cannot be read ({reason}); one key per line") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or any(len(key) < MIN_KEY_LENGTH or not key.isascii() for key in keys):
        raise ConfigError(
            f"MLA_API_KEYS_FILE={str(path)!r}: expected one key per line, each of {MIN_KEY_LENGTH} ASCII characters "
            "or more; make one with: openssl rand -hex 24"
        )
    return keys


def _digests(keys: Sequence[str]) -> list[bytes]:
    return [hashlib.sha256(key.encode()).digest() for key in keys]


def _bearer(scope: Scope) -> bytes:
    """Return the key that a request sends, empty when it sends none."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            key: bytes = value[7:].strip()
            return key
    return b""
