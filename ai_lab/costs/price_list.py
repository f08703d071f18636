"""Where prices come from: the settings, else the list that ships as the package genai-prices."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from ai_lab.clock import now
from ai_lab.costs.prices import FREE, LOCAL, Price, UnitPrices, price_of_entry
from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

SOURCE = "genai-prices"
#: Names of models are the caller's: not all of them are remembered for ever.
_REMEMBERED = 2_000
#: Our kinds of tokens -> the list's.
_KINDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
}
_PER_THOUSAND_REQUESTS = "requests_kcount"
#: Services whose models of another's making have the maker's price in front or behind: known by the list itself.
_SAME_NAME = frozenset({"openai", "anthropic", "google", "azure", "cohere", "openrouter", "together"})
_FREE_SUFFIX = ":free"


class PriceList:
    """Finds prices. The shipped list takes a moment to load: that is done on first use, in a thread.

    Args:
        settings: with prices of the user's own, which win, and addresses of servers of the user's own.

    Raises:
        InvalidSettings: a price is no number.
    """

    def __init__(self, settings: Settings) -> None:
        for name, entry in settings.prices.items():
            if not all(math.isfinite(price) for price in entry.model_dump(exclude_none=True).values()):
                raise InvalidSettings(f"AI_LAB_PRICES: the price of {name} must be a finite number.")
        self._own = {name: price_of_entry(entry) for name, entry in settings.prices.items()}
        self._addresses = {name: entry.base_url for name, entry in settings.servers.items()}
        self._shipped: ShippedPrices | None = None
        self._loading: asyncio.Task[ShippedPrices] | None = None

    def own(self, service: str, model: str) -> Price | None:
        """Return what the settings say."""
        return self._own.get(f"{service}/{model}") or self._own.get(f"{service}/*")

    def begin_to_load(self, service: str, model: str) -> None:
        """Load the shipped list in the background where it will be asked, so that it is there when the answer is."""
        if self._loading is None and self.own(service, model) is None:
            self._loading = asyncio.create_task(asyncio.to_thread(ShippedPrices))

    async def find(
        self, service: str, model: str, *, is_local: bool = False, at: datetime | None = None
    ) -> Price | None:
        """Return the price of a model at a moment (default: now); None: nobody knows it."""
        if own := self.own(service, model):
            return own
        if is_local:
            return LOCAL
        shipped = self._shipped or await self.load()
        return shipped.find(service, model, at or now(), self._addresses.get(service))

    async def load(self) -> ShippedPrices:
        """Wait until the shipped list is there, and return it."""
        if self._shipped is None:
            if self._loading is None:
                self._loading = asyncio.create_task(asyncio.to_thread(ShippedPrices))
            self._shipped = await asyncio.shield(self._loading)
        return self._shipped

    async def close(self) -> None:
        """Wait for what is being loaded: a thread cannot be stopped."""
        if self._loading:
            await asyncio.wait({self._loading})


class ShippedPrices:
    """The list of the package genai-prices. Making one takes 0.3 s or more: imports and 2,000 models."""

    def __init__(self) -> None:
        from genai_prices import __version__, data_snapshot  # noqa: PLC0415 - 0.3 s, in the thread that makes this

        self._version = __version__
        self._providers = data_snapshot.get_snapshot().providers
        self._by_id = {provider.id: provider for provider in self._providers}
        self._models: dict[tuple[str, str], ModelInfo | None] = {}
        self._converted: dict[int, Price | None] = {}

    def find(self, service: str, model: str, at: datetime, address: str | None = None) -> Price | None:
        """Return the price by this list; ``address``: of a server of the user's own, which decides whose it is."""
        known = (service, model)
        if known not in self._models:
            if len(self._models) >= _REMEMBERED:
                self._models.clear()
            self._models[known] = self._look_up(service, model, address)
        info = self._models[known]
        if info is None:
            return None
        prices = info.get_prices(at)
        if not any(value is not None for value in vars(prices).values()):
            # Nothing is said for what is free, and for what is not known.
            return Price(SOURCE, self._version, FREE) if model.lower().endswith(_FREE_SUFFIX) else None
        if id(prices) not in self._converted:  # they live as long as the list
            self._converted[id(prices)] = self._convert(prices)
        return self._converted[id(prices)]

    def _look_up(self, service: str, model: str, address: str | None) -> ModelInfo | None:
        if service == "huggingface":  # whom the router asks is known only where the name says so
            model, _, router = model.rpartition(":")
            provider = self._by_id.get(f"huggingface_{router}")
        elif address is not None:
            provider = self._at(address)
        else:
            provider = self._by_id.get(service) if service in _SAME_NAME else None
        return provider.find_model(model, all_providers=self._providers) if provider else None

    def _at(self, address: str) -> Provider | None:
        from genai_prices import data_snapshot  # noqa: PLC0415 - loaded already

        try:
            return data_snapshot.get_snapshot().find_provider(None, None, address)
        except LookupError:
            return None

    def _convert(self, prices: ModelPrice) -> Price | None:
        """Return prices in our shape; None where tokens are not what is paid for."""
        from genai_prices.types import TieredPrices  # noqa: PLC0415 - loaded already

        values: Mapping[str, Decimal | TieredPrices] = {
            kind: value for kind, name in _KINDS.items() if (value := getattr(prices, name)) is not None
        }
        if "input" not in values:
            return None
        per_thousand = getattr(prices, _PER_THOUSAND_REQUESTS)
        if per_thousand is not None and not isinstance(per_thousand, Decimal):
            return None
        request = per_thousand / 1000 if per_thousand is not None else None

        def units(above: int | None) -> UnitPrices:
            found = {kind: _tier(value, above) for kind, value in values.items()}
            return UnitPrices(**found, request=request)

        starts = sorted(
            {tier.start for value in values.values() if isinstance(value, TieredPrices) for tier in value.tiers}
        )
        return Price(SOURCE, self._version, units(None), tuple((start, units(start)) for start in starts))


def _tier(value: object, above: int | None) -> Decimal:
    """Return the price for prompts of more than ``above`` tokens; None: of any length."""
    if isinstance(value, Decimal):
        return value
    price: Decimal = value.base  # type: ignore[attr-defined]  # the list's TieredPrices, whose import is lazy
    for tier in value.tiers if above is not None else ():  # type: ignore[attr-defined]  # as above
        if tier.start <= above:
            price = tier.price
    return price
