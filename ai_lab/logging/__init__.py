"""Owns how programs log: entries with fields, free of secrets, to a terminal, to a file and to Sentry.

Code that logs uses the standard library (``logging.getLogger(__name__)``, fields in ``extra``) and knows nothing of
this package; a program calls ``set_up_logging`` once. A library that is imported leaves logging alone. Nothing here
needs structlog before that call.
"""

from __future__ import annotations

from ai_lab.logging.context import RequestIds, request_ids
from ai_lab.logging.redaction import redact, redact_text
from ai_lab.logging.setup import set_up_logging
from ai_lab.logging.slow import SlowOperations

__all__ = ["RequestIds", "SlowOperations", "redact", "redact_text", "request_ids", "set_up_logging"]
