"""Set up logging once, for programs; a library that is imported leaves it alone."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pydantic import SecretStr

from ai_lab.errors import InvalidSettings
from ai_lab.logging.entries import describe, printable, without_secrets
from ai_lab.logging.log_file import LogFile
from ai_lab.logging.queued import QueuedHandler, Sink
from ai_lab.settings import Settings

if TYPE_CHECKING:
    from structlog.stdlib import ProcessorFormatter

#: Loggers that would write addresses, and with them whatever stands in them, at INFO.
_CHATTY = ("httpx", "httpcore", "asyncio", "aiosqlite", "alembic", "urllib3")

logger = logging.getLogger(__name__)


def set_up_logging(settings: Settings) -> None:
    """Send every record, of whatever library, to standard error and to the configured file and Sentry server.

    May be called again: the former handlers are closed.

    Raises:
        InvalidSettings: AI_LAB_LOG_FILE cannot be written, or SENTRY_DSN cannot be used.
    """
    known = _known_secrets(settings)
    sinks = [Sink(sys.stderr)]
    sinks[0].setFormatter(_formatter(known, as_json=settings.log_format == "json", colors=_is_terminal()))
    if settings.log_file:
        sinks.append(Sink(_open_file(settings)))
        sinks[1].setFormatter(_formatter(known, as_json=True))
    if settings.sentry_dsn:
        from ai_lab.logging.sentry import start_error_reports  # noqa: PLC0415 - an extra, seldom there

        start_error_reports(settings.sentry_dsn.get_secret_value(), known)
    logging.basicConfig(level=settings.log_level, handlers=[QueuedHandler(sinks)], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda error: _log_uncaught(error.exc_type, error.exc_value, error.exc_traceback)


def _formatter(known: Collection[str], *, as_json: bool, colors: bool = False) -> ProcessorFormatter:
    with _without_rich():
        from structlog.dev import ConsoleRenderer, plain_traceback  # noqa: PLC0415 - programs alone need it
        from structlog.processors import JSONRenderer  # noqa: PLC0415 - as above
        from structlog.stdlib import ProcessorFormatter  # noqa: PLC0415 - as above
    if as_json:
        return ProcessorFormatter(processors=[describe, without_secrets(known), JSONRenderer(ensure_ascii=False)])
    shown = ConsoleRenderer(colors=colors, pad_event_to=0, sort_keys=False, exception_formatter=plain_traceback)
    return ProcessorFormatter(processors=[describe, without_secrets(known), printable, shown])


@contextlib.contextmanager
def _without_rich() -> Iterator[None]:
    """Let structlog find no rich: half of its import time would be for tracebacks that are drawn here."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules["rich"]


def _open_file(settings: Settings) -> LogFile:
    path = settings.data_path() / settings.log_file.expanduser() if settings.log_file else settings.data_path()
    try:
        return LogFile(path, max_bytes=settings.log_file_mb * 1024**2, kept=settings.log_files_kept)
    except OSError as error:
        raise InvalidSettings(
            f"AI_LAB_LOG_FILE: {path} cannot be written ({error.strerror}). Name a file in a folder where your user "
            "may write, or leave the setting empty."
        ) from error


def _known_secrets(settings: Settings) -> tuple[str, ...]:
    values = [getattr(settings, name) for name in type(settings).model_fields]
    values += [server.api_key for server in settings.servers.values()]
    return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))


def _is_terminal() -> bool:
    return sys.platform != "win32" and sys.stderr is not None and sys.stderr.isatty()


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Let the traceback of a program that dies be free of secrets too."""
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logger.critical("uncaught error", exc_info=(kind, error, trace))
