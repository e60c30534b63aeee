"""What the log looks like: BentoML's lines, or one JSON object per line.

Neither holds what a client sent. Of an exception the JSON has the type and the frames, never the message, which third
parties like to fill with what they were given.
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

from mla_serve.serve.request_id import REQUEST_ID

LOGGERS = ("", "bentoml", "uvicorn.error", "circus")


class JsonFormatter(logging.Formatter):
    """One line per record: time, level, logger, process, message; request_id and the record's facts where there are."""

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


def install(style: str) -> None:
    """Write the log as `text` or `json`, in this process from now on and wherever BentoML sets its logging up later."""
    logging.getLogger("mla_serve").setLevel(logging.INFO)
    if style != "json":
        return
    from bentoml._internal.log import CLI_LOGGING_CONFIG, SERVER_LOGGING_CONFIG

    for config in (CLI_LOGGING_CONFIG, SERVER_LOGGING_CONFIG):
        for name in config["formatters"]:
            config["formatters"][name] = {"()": JsonFormatter}
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(JsonFormatter())
