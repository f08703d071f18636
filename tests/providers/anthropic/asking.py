"""How these tests ask the provider."""

from __future__ import annotations

from ai_lab.providers.types import ChatRequest, Message
from tests.providers.asking import Asking
from tests.security.canary import new_secret

KEY = new_secret("sk-ant-api03-")
ASKED = ChatRequest("claude-tiny", [Message("user", "hi")])
_ask = Asking(ASKED)
collect, failure, sent = _ask.collect, _ask.failure, _ask.sent


async def key() -> str:
    return KEY
