"""The shapes of costs and budgets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ai_lab.providers import Usage


@dataclass(frozen=True, slots=True)
class Attempted:
    """What is to be paid for: one attempt that reached a model. ``id`` is unique; charging it twice changes nothing."""

    id: str
    call_id: str
    at: datetime
    source: str
    service: str
    model: str
    alias: str | None
    session_id: str | None
    is_local: bool
    outcome: str
    usage: Usage | None
    total_ms: float
    #: Mean number of local answers in the making meanwhile, this one included; the machine's power is shared by them.
    local_load: float = 1.0


@dataclass(frozen=True, slots=True)
class Charge:
    """What it cost, in nano-dollars (1e-9 USD); None: not known. Local models cost no money but electricity.

    ``price``: US dollars per million tokens by kind (input, cached_input, cache_write, output, reasoning).
    """

    cost_nanousd: int | None
    price: dict[str, Any] | None = None
    price_source: str | None = None
    price_version: str | None = None
    energy_joules: float | None = None
    electricity_nanousd: int | None = None
