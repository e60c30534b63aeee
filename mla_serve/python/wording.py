"""Messages of training, which name flags of the command: in Python the same settings are keywords."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from mla_serve.errors import ConfigError, DataError

FLAG = re.compile(
    r"(?<![\w-])--(?P<name>[a-z][a-z-]*[a-z])(?: (?P<key>[^\s=]+)=(?P<value>[\w:./-]*[\w/])| (?P<plain>[A-Z]{2,}\b|\d[\d.]*\d|\d))?"
)


def as_keywords(text: str, types: Mapping[str, str]) -> str:
    """Name settings as `mla_serve.fit` takes them: --skip-bad is skip_bad=True, --kinds a=text is kinds={'a': 'text'}.

    Args: types, the annotation of each setting, by its name.
    """
    return FLAG.sub(lambda found: _keyword(found, types), text)


def _keyword(found: re.Match[str], types: Mapping[str, str]) -> str:
    name = found["name"].replace("-", "_")
    if name not in types:
        return found[0]
    if types[name] == "bool":
        return f"{name}=True" + found[0].removeprefix(f"--{found['name']}")
    if found["key"]:
        return f"{name}={{{found['key']!r}: {found['value']!r}}}"
    return f"{name}={found['plain']}" if found["plain"] else name


@contextlib.contextmanager
def keyword_errors(types: Mapping[str, str]) -> Iterator[None]:
    """Reword the errors of the block, see as_keywords. Raises: ConfigError, DataError."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(as_keywords(str(error), types)) from None
