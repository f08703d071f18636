"""A server under test that lives in the test itself: answers after scripted delays and counts tokens as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record, Status
from ai_lab.benchmarks.targets.target import Question


class ScriptedTarget:
    """Serves ``slots`` requests at a time for ``service_seconds`` each, the others wait in order of arrival.

    Args:
        statuses: what becomes of the requests, in turn and again from the beginning.
        count: tokens of a prompt.
    """

    is_local = True

    def __init__(
        self,
        *,
        service_seconds: float = 0.0,
        slots: int = 10_000,
        statuses: Sequence[Status] = ("ok",),
        http_status: int | None = None,
        count: Callable[[str], int | None] = lambda prompt: len(prompt.split()),
    ) -> None:
        self.asked: list[Question] = []
        self.counted: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._service_seconds = service_seconds
        self._slots = asyncio.Semaphore(slots)
        self._statuses = statuses
        self._http_status = http_status
        self._count = count

    async def ask(self, question: Question, record: Record) -> None:
        """Wait, then be what the script says."""
        status = self._statuses[len(self.asked) % len(self._statuses)]
        self.asked.append(question)
        record.sent_ns = time.perf_counter_ns()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            async with self._slots:
                await asyncio.sleep(self._service_seconds)
        except asyncio.CancelledError:
            record.status = "cancelled"
            raise
        finally:
            self._at_once -= 1
            record.end_ns = time.perf_counter_ns()
        record.status = status
        if status == "ok":
            record.first_token_ns = record.last_token_ns = record.end_ns
        else:
            record.error, record.http_status = "Connection refused.", self._http_status

    async def was_asked(self, times: int) -> None:
        """Return when so many requests have come."""
        while len(self.asked) < times:  # noqa: ASYNC110 - a look every 10 ms is simple
            await asyncio.sleep(0.01)

    async def prompt_tokens(self, prompt: str) -> int | None:
        """Count as told."""
        self.counted.append(prompt)
        return self._count(prompt)

    async def describe(self) -> dict[str, Any]:
        """Say nothing."""
        return {}

    async def cold_load(self) -> float | None:
        """Load nothing."""
        return None

    def process_ids(self) -> list[int]:
        """Have no process."""
        return []

    async def close(self) -> None:
        """Close nothing."""


def plan(*, arms: int = 1, load: dict[str, Any] | None = None, **values: Any) -> Plan:
    """Return a plan with so many arms."""
    names = [{"model": "echo/one", "name": f"arm {number}"} for number in range(arms)]
    return Plan.model_validate({"arms": names, "load": load or {"mode": "closed"}, "warmup": 0, **values})
