"""What tokens cost: a price with its source, and the sum for what an attempt used."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from ai_lab.providers import Usage
from ai_lab.settings import PriceEntry

NANO = 1_000_000_000
#: Nano-dollars per token where a million tokens cost one dollar.
_NANO_PER_TOKEN = Decimal(1000)
#: What 64 bits hold, with room for sums.
_MOST_NANOUSD = 10**17
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """US dollars per million tokens by kind, and per request.

    What is None costs as ``input``, or for ``reasoning`` as ``output``; ``output`` is None where nothing is put out
    (embeddings).
    """

    input: Decimal
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal | None = None

    def cost_nanousd(self, usage: Usage) -> int | None:
        """Return what was used costs, rounded half to even; None where the tokens that count are not known.

        (prompt - cached - cache_write) * input + cached * cached_input + cache_write * cache_write
        + (completion - reasoning) * output + reasoning * reasoning + request
        """
        if usage.prompt_tokens is None or (usage.completion_tokens is None and self.output):
            return None
        if self.output is None and usage.completion_tokens:
            return None
        prompt = max(0, usage.prompt_tokens)
        cached = min(prompt, max(0, usage.cached_tokens or 0))
        written = min(prompt - cached, max(0, usage.cache_write_tokens or 0))
        completion = max(0, usage.completion_tokens or 0)
        reasoning = min(completion, max(0, usage.reasoning_tokens or 0))
        output = self.output or _NOTHING
        try:
            per_token = (
                (prompt - cached - written) * self.input
                + cached * _first_known(self.cached_input, self.input)
                + written * _first_known(self.cache_write, self.input)
                + (completion - reasoning) * output
                + reasoning * _first_known(self.reasoning, output)
            )
            cost = per_token * _NANO_PER_TOKEN + (self.request or _NOTHING) * NANO
            whole = int(cost.to_integral_value(ROUND_HALF_EVEN))
        except (InvalidOperation, OverflowError):  # a price without end
            return None
        return whole if whole <= _MOST_NANOUSD else None

    def as_stored(self) -> dict[str, Any]:
        """Return what is kept with a charge, so that it can be checked; only kinds that have a price of their own."""
        kinds = {
            "input": self.input,
            "cached_input": self.cached_input,
            "cache_write": self.cache_write,
            "output": self.output,
            "reasoning": self.reasoning,
            "request": self.request,
        }
        return {kind: float(price) for kind, price in kinds.items() if price is not None}


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, and who says so. ``tiers``: with more prompt tokens than that, all tokens cost the other."""

    source: str
    version: str | None
    units: UnitPrices
    tiers: tuple[tuple[int, UnitPrices], ...] = ()

    def units_for(self, prompt_tokens: int | None) -> UnitPrices:
        """Return the prices for a prompt of this length."""
        applicable = self.units
        for above, units in self.tiers:
            if prompt_tokens is not None and prompt_tokens > above:
                applicable = units
        return applicable

    def cost_nanousd(self, usage: Usage | None) -> int | None:
        """Return what an attempt costs; None where that is not known. What is free is so whatever was used."""
        if self.units == FREE:
            return 0
        return self.units_for(usage.prompt_tokens).cost_nanousd(usage) if usage else None

    def typical_usd(self) -> Decimal:
        """Return a figure to put models in order by: a million tokens in and a quarter of that out."""
        return self.units.input + (self.units.output or _NOTHING) / 4


#: Models on this machine: no money, whatever they use.
FREE = UnitPrices(_NOTHING, _NOTHING)
LOCAL = Price("local", None, FREE)
#: A service that refused or failed before it made a token is owed nothing, whatever its price.
UNANSWERED = Price("unanswered", None, FREE)

#: The source of a cost that the service itself told with its answer.
BY_SERVICE = "service"


def price_of_entry(entry: PriceEntry) -> Price:
    """Return the price that the settings name."""
    units = UnitPrices(
        input=_exact(entry.input) or _NOTHING,
        output=_exact(entry.output),
        cached_input=_exact(entry.cached_input),
        cache_write=_exact(entry.cache_write),
        reasoning=_exact(entry.reasoning),
    )
    return Price("settings", None, units)


def nanousd(usd: float) -> int:
    """Return dollars as nano-dollars."""
    return int((Decimal(str(usd)) * NANO).to_integral_value(ROUND_HALF_EVEN))


def usd(nanousd: int) -> float:
    """Return nano-dollars as dollars."""
    return nanousd / NANO


def as_money(nanousd: int) -> str:
    """Return an amount for people: ``$0.0021``, with as many digits as it has."""
    text = f"{Decimal(nanousd) / NANO:.9f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"${whole}.{part:0<2}"


def _exact(value: float | None) -> Decimal | None:
    """Return the number as it was written, not as binary fractions have it."""
    return None if value is None else Decimal(str(value))


def _first_known(price: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if price is None else price
