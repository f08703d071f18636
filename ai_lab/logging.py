"""Set up logging once, for programs; a library that is imported leaves it alone."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from ai_lab.settings import Settings

#: Loggers that would write addresses, and with them whatever stands in them, at INFO.
_CHATTY = ("httpx", "httpcore", "asyncio", "aiosqlite", "alembic")


class JsonLines(logging.Formatter):
    """One JSON object per record: timestamp, level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        entry = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(settings: Settings) -> None:
    """Send every record at the level of the settings to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
