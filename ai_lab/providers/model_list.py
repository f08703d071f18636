"""What a provider says that it can run, and how often it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ai_lab.errors import LabError
from ai_lab.providers.types import ModelInfo, Provider

#: How long whoever wants the list waits for it.
_WAIT_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 5.0
#: Services that are paid for are asked in the background and seldom: every question uses the key.
_KEYED_LIMIT_SECONDS = 10.0
_KEYED_KEPT_SECONDS = 300.0
_KEYED_ASK_AGAIN_SECONDS = 60.0
#: Lists that nobody wanted for this long are not renewed in the background.
_WANTED_SECONDS = 3600.0


class ModelList:
    """The last list of a provider.

    Attributes:
        models: as it was last told; empty before.
        answered: whether the last question was answered.
        failure: why it was not.
    """

    def __init__(self) -> None:
        self.models: list[ModelInfo] = []
        self.answered = False
        self.failure: str | None = None
        self._asked_at = float("-inf")
        self._wanted_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def refresh(self, provider: Callable[[], Provider], *, is_keyed: bool) -> None:
        """Ask for the list and wait a second for it; one that did not answer just now is left alone.

        Args:
            provider: returns the one to ask.
            is_keyed: its list is kept for five minutes, and one that comes late is there for the next who wants it.
        """
        self._wanted_at = time.monotonic()
        age_seconds = self._wanted_at - self._asked_at
        if not is_keyed:
            if self.answered or age_seconds >= _ASK_AGAIN_SECONDS:
                await self._ask(provider, _WAIT_SECONDS)
            return
        if age_seconds < (_KEYED_KEPT_SECONDS if self.answered else _KEYED_ASK_AGAIN_SECONDS):
            return
        await asyncio.wait({self._ask_behind(provider)}, timeout=_WAIT_SECONDS)

    async def renew(self, provider: Callable[[], Provider]) -> None:
        """Ask for the list if anybody wanted it in the last hour; one that does not come leaves the last one, stale."""
        if time.monotonic() - self._wanted_at < _WANTED_SECONDS:
            await asyncio.wait({self._ask_behind(provider)})

    def find(self, name: str) -> str | None:
        """Return the listed name that ``name`` means: case and Ollama's ``:latest`` do not matter."""
        wanted = name.lower().removesuffix(":latest")
        return next((info.name for info in self.models if info.name.lower().removesuffix(":latest") == wanted), None)

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    def _ask_behind(self, provider: Callable[[], Provider]) -> asyncio.Task[None]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(provider, _KEYED_LIMIT_SECONDS))
        return self._asking

    async def _ask(self, provider: Callable[[], Provider], limit_seconds: float) -> None:
        try:
            async with asyncio.timeout(limit_seconds):
                self.models = await provider().models()
            self.answered, self.failure = True, None
        except LabError as error:
            self.answered, self.failure = False, error.detail
        except TimeoutError:
            self.answered, self.failure = False, f"no answer in {limit_seconds:g} s"
        self._asked_at = time.monotonic()
