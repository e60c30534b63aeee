"""The format of the log: BentoML's lines, or one JSON object per line.

Neither contains anything that a client sent. Of an exception the JSON has the type and the frames but not the message,
because libraries put their input into messages.
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

from mla_serve.serve.request_id import REQUEST_ID

BENTOML_LOGGERS = ("", "bentoml", "uvicorn.error", "circus")  # those that BentoML gives handlers


class JsonFormatter(logging.Formatter):
    """One line per record: time, level, logger, process, message; request_id and the record's `facts` if there are any."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            content["request_id"] = request_id
        content |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0] is not None:
            content["exception"] = record.exc_info[0].__name__
            content["frames"] = traceback.format_tb(record.exc_info[2])
        return orjson.dumps(content, default=repr).decode()


def set_log_format(style: str) -> None:
    """Write the log as `text` or `json` from now on. Call it after BentoML has set up its logging."""
    logging.getLogger("mla_serve").setLevel(logging.INFO)
    if style != "json":
        return
    for name in BENTOML_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(JsonFormatter())
