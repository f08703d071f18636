"""Send errors to a Sentry server, where one is configured: what the log has of them and nothing more."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ai_lab import __version__
from ai_lab.errors import InvalidSettings
from ai_lab.logging.context import request_ids
from ai_lab.logging.redaction import redact

if TYPE_CHECKING:
    from sentry_sdk.types import Breadcrumb, Event


def start_error_reports(dsn: str, known: Collection[str]) -> None:
    """Report every entry at ERROR and above, with those before it, in a background thread.

    None of the integrations that look into requests, arguments or the environment is used: errors come by way of the
    log. Local variables stay here, and so does the name of the machine.

    Args:
        dsn: address of the server, with its public key.
        known: secrets that are looked for by what they are, beside the other rules of redaction.

    Raises:
        InvalidSettings: the extra is not installed, or the address is none.
    """
    try:
        import sentry_sdk  # noqa: PLC0415 - an extra, and slow to import
        from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415 - as above
        from sentry_sdk.integrations.dedupe import DedupeIntegration  # noqa: PLC0415 - as above
        from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415 - as above
        from sentry_sdk.utils import BadDsn  # noqa: PLC0415 - as above
    except ImportError:
        raise InvalidSettings(
            "SENTRY_DSN needs the extra: pip install 'ai-lab[sentry]'. Or leave the setting empty."
        ) from None

    def before_send(event: Event, _: dict[str, Any]) -> Event | None:
        reported: Event = redact(event, known)
        if ids := request_ids.get():
            reported["tags"] = {**reported.get("tags", {}), **ids._asdict()}
        return reported

    def before_breadcrumb(breadcrumb: Breadcrumb, _: dict[str, Any]) -> Breadcrumb | None:
        remembered: Breadcrumb = redact(breadcrumb, known)
        return remembered

    try:
        sentry_sdk.init(
            dsn,
            release=f"ai-lab@{__version__}",
            server_name="ai-lab",
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[
                LoggingIntegration(level=logging.INFO, event_level=logging.ERROR, sentry_logs_level=None),
                DedupeIntegration(),
                AtexitIntegration(callback=lambda *_: None),
            ],
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
            traces_sample_rate=None,
            auto_session_tracking=False,
            send_client_reports=False,
            enable_metrics=False,
            spotlight=False,
            before_send=before_send,
            before_breadcrumb=before_breadcrumb,
        )
    except BadDsn:
        raise InvalidSettings(
            "SENTRY_DSN is no address of a Sentry project (https://key@host/number). Correct it or leave it empty."
        ) from None
