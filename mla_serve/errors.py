"""What can go wrong, and whose turn it is to act.

    MlaServeError
    ├── InputError            the caller's: one sample cannot be used as sent (4xx)
    │   ├── MissingInput      nothing to classify was sent
    │   ├── UnknownField      a field or option that this model does not have
    │   ├── TooLarge          more bytes, pixels, seconds or characters than the limits allow
    │   ├── NotFinite         the model makes infinite numbers, or none, of it
    │   └── UnsupportedFormat the payload is not of a format that this modality reads
    ├── DataError             the training table: missing files, unknown labels, unreadable rows
    ├── BundleError           a model folder that is damaged, incomplete or from another version
    └── ConfigError           the operator's: flags, settings, a missing package

Every message says what was given, what was expected and what to do. Anything else that is raised is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence


class MlaServeError(Exception):
    """Base of every error that is raised on purpose."""


class InputError(MlaServeError):
    """One sample cannot be used as it was sent.

    Args: field, the request field or modality at fault; message, what was given, expected, and what to do.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        """Say how to pickle it: a pool of processes hangs on an error that it cannot read back."""
        return _restored, (type(self), self.args, vars(self))

    @property
    def advice(self) -> str:
        """What to do."""
        return advice(self.message)


class MissingInput(InputError):
    """Nothing to classify was sent."""


class UnknownField(InputError):
    """A field or option that this model does not have."""


class TooLarge(InputError):
    """More bytes, pixels, seconds, characters or numbers than the limits allow."""


class NotFinite(InputError):
    """A modality of which the model's graphs make numbers that are infinite, or none at all.

    Args: field, the modality; rows, which of the samples that were given have it.
    """

    def __init__(self, field: str, rows: Sequence[int]) -> None:
        super().__init__(
            field,
            "the model makes no finite numbers of it, so there is no answer; expected values such as it was trained on: "
            "send smaller ones, or leave it out",
        )
        self.rows = rows


class UnsupportedFormat(InputError):
    """The payload is not of a format that this modality reads."""


class DataError(MlaServeError):
    """A data set that cannot be trained on or measured with."""


class BundleError(MlaServeError):
    """A model folder that is damaged, incomplete or from another version."""


class ConfigError(MlaServeError):
    """A flag, setting or installed package that does not fit; refuse to start."""


def _restored(cls: type[InputError], words: tuple[str], state: dict[str, object]) -> InputError:
    """Make an error again, whatever its own constructor takes."""
    error = cls.__new__(cls, *words)
    error.__dict__.update(state)
    return error


def advice(message: str) -> str:
    """Return the part of a message that says what to do: what stands after its last semicolon."""
    return message.rpartition("; ")[2]
