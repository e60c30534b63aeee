"""The errors of this package, by who can correct them.

    MlaServeError
    ├── InputError            the caller's: a sample that cannot be used as sent (4xx)
    │   ├── MissingInput      nothing to classify was sent
    │   ├── UnknownField      a field or option that this model does not have
    │   ├── TooLarge          more bytes, pixels, seconds or characters than the limits allow
    │   ├── NotFinite         a graph of the model returns infinity or NaN for it
    │   └── UnsupportedFormat the payload is not of a format that this modality reads
    ├── DataError             a table with missing files, unknown labels or unreadable rows
    ├── BundleError           a model folder that is damaged, incomplete or from another version
    └── ConfigError           the operator's: a flag, setting or missing package

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
        """Make errors picklable: a process pool hangs on an error that it cannot unpickle."""
        return _restored, (type(self), self.args, vars(self))

    @property
    def advice(self) -> str:
        """The part of the message that says what to do."""
        return advice(self.message)


class MissingInput(InputError):
    """No input was sent."""


class UnknownField(InputError):
    """A field or option that this model does not have."""


class TooLarge(InputError):
    """More bytes, pixels, seconds, characters or numbers than the limits allow."""


class NotFinite(InputError):
    """A graph of the model returns infinity or NaN for a modality.

    Args: field, the modality; rows, the indices of the samples it happened for.
    """

    def __init__(self, field: str, rows: Sequence[int]) -> None:
        super().__init__(
            field,
            "the model returns infinity or NaN for it, so there is no answer; expected values like those it was trained on: "
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


def _restored(cls: type[InputError], args: tuple[str], state: dict[str, object]) -> InputError:
    """Restore an error without calling its constructor, whose arguments differ from class to class."""
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def advice(message: str) -> str:
    """Return the part of a message that says what to do, which stands after its last semicolon."""
    return message.rpartition("; ")[2]
