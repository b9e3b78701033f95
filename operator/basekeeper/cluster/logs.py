"""Logs of the programs that run in a cluster: a line for each thing worth knowing, as text or as JSON, on stderr."""

import json
import logging
import sys
import time
from enum import StrEnum
from typing import Any


class LogFormat(StrEnum):
    """How to write a line."""

    TEXT = "text"
    JSON = "json"


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def told(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says beside its message: its `extra`, in its order; libraries put objects there."""
    if not record.name.startswith("basekeeper"):
        return {}
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD and value is not None}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({**line, **told(record)}, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {key}={_quoted(value)}" for key, value in told(record).items())
        line = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(form: LogFormat, *, verbose: bool) -> None:
    """Write the program's log; what libraries say only where it is a warning, unless `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form is LogFormat.JSON else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("basekeeper").setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in ("kopf", "asyncio", "aiohttp", "urllib3", "kubernetes"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text
