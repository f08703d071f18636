"""What every answer tells browsers: nothing may be guessed, framed, embedded or loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Answers that are no page: nothing at all is loaded for them.
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
#: Reports bring their styles and drawings along and have no script; the sandbox keeps them off the API altogether.
_REPORT = f"{_NOTHING}; style-src 'unsafe-inline'; img-src data:; sandbox"
#: The page that takes the token; its form is sent by its script.
LOGIN = f"{_NOTHING}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"

#: For every answer that does not say otherwise.
DEFAULT_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": _NOTHING,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_CSP = b"content-security-policy"
_DEFAULTS = [(name.encode(), value.encode()) for name, value in DEFAULT_HEADERS.items()]
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """Plain ASGI; adds what the answer has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(list(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, send_with_headers)


def docs_policy(page: str) -> str:
    """Return the policy for Swagger UI: its files, its requests to us, and exactly the script that stands in ``page``.

    Its style attributes and the drawings in its style sheet are its own.
    """
    sums = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in _SCRIPT.findall(page))
    scripts = " ".join(f"'sha256-{one}'" for one in sums)
    return (
        f"{_NOTHING}; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'"
    )


def _completed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    if _CSP not in present and any(
        name == b"content-type" and value.startswith(b"text/html") for name, value in headers
    ):
        headers.append((_CSP, _REPORT.encode()))
        present.add(_CSP)
    headers.extend(pair for pair in _DEFAULTS if pair[0] not in present)
    return headers
