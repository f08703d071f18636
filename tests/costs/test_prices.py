"""What tokens cost: by hand, and against the price list's own reckoning."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest

from ai_lab.costs.price_list import PriceList
from ai_lab.costs.prices import Price, UnitPrices, as_money, nanousd
from ai_lab.errors import InvalidSettings
from ai_lab.providers import Usage
from ai_lab.settings import PriceEntry, ServerEntry, Settings

UNITS = UnitPrices(
    input=Decimal("2.5"),
    output=Decimal(10),
    cached_input=Decimal("1.25"),
    cache_write=Decimal("3.125"),
    reasoning=Decimal(12),
)


@pytest.fixture(scope="module")
def prices() -> PriceList:
    return PriceList(
        Settings(
            prices={
                "openai/gpt-4o": PriceEntry(input=1, output=2),
                "mine/*": PriceEntry(input=0.1, output=0.2, reasoning=0.4),
                "mine/small": PriceEntry(input=0.05, output=0),
            },
            servers={
                "groq-account": ServerEntry(base_url="https://api.groq.com/openai/v1"),
                "openai-like": ServerEntry(base_url="http://10.1.2.3:8000/v1"),
            },
        )
    )


@pytest.mark.parametrize(
    ("usage", "cost_nanousd"),
    [
        (Usage(1000, 100), 3_500_000),  # 1000 * 2.5 + 100 * 10 = 3500 millionths of a dollar
        (Usage(1000, 100, cached_tokens=400), 3_000_000),  # 600 * 2.5 + 400 * 1.25 + 1000
        (Usage(1000, 100, cached_tokens=400, cache_write_tokens=100), 3_062_500),  # 500 * 2.5 + 500 + 312.5 + 1000
        (Usage(1000, 100, reasoning_tokens=60), 3_620_000),  # 2500 + 40 * 10 + 60 * 12
        (Usage(1, 0), 2500),
        (Usage(0, 0), 0),
        (Usage(10, 5, cached_tokens=99, reasoning_tokens=99), 72_500),  # no more than there are: 10 * 1.25 + 5 * 12
        (Usage(-5, -5), 0),
        (Usage(None, 100), None),
        (Usage(1000, None), None),
        (Usage(), None),
        (Usage(10**18, 1), None),  # no service means that
    ],
)
def test_by_hand(usage: Usage, cost_nanousd: int | None) -> None:
    assert UNITS.cost_nanousd(usage) == cost_nanousd


def test_kinds_without_a_price_of_their_own_cost_as_input_and_output() -> None:
    units = UnitPrices(input=Decimal(1), output=Decimal(2))
    usage = Usage(100, 50, cached_tokens=40, cache_write_tokens=10, reasoning_tokens=20)
    assert units.cost_nanousd(usage) == 200_000
    assert UnitPrices(input=Decimal("0.02")).cost_nanousd(Usage(1000, None)) == 20_000, "embeddings put nothing out"


def test_halves_of_a_nano_dollar_go_to_the_even_side() -> None:
    units = UnitPrices(input=Decimal("0.0005"))
    assert [units.cost_nanousd(Usage(count)) for count in (1, 2, 3, 5)] == [0, 1, 2, 2]


def test_a_price_without_end_is_no_price() -> None:
    with pytest.raises(InvalidSettings, match="AI_LAB_PRICES: the price of a/b must be"):
        PriceList(Settings(prices={"a/b": PriceEntry(input=1, output=float("inf"))}))
    assert UnitPrices(input=Decimal("Infinity")).cost_nanousd(Usage(1, 1)) is None


@pytest.mark.parametrize(
    ("service", "model"),
    [
        ("openai", "gpt-4o-mini"),
        ("openai", "gpt-5"),
        ("openai", "text-embedding-3-small"),
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-1-20250805"),
        ("google", "gemini-2.5-pro"),
        ("azure", "gpt-4o"),
        ("azure", "claude-sonnet-4-5"),
        ("cohere", "command-r-plus"),
        ("openrouter", "anthropic/claude-sonnet-4"),
        ("openrouter", "perplexity/sonar-deep-research"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ],
)
@pytest.mark.parametrize("prompt_tokens", [1000, 200_000, 200_001, 500_000])
async def test_the_price_list_reckons_the_same(prices: PriceList, service: str, model: str, prompt_tokens: int) -> None:
    """Long prompts are dearer at some services; the list knows from where on."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    found = await prices.find(service, model, at=at)
    assert found
    has_output = found.units.output is not None
    usage = Usage(prompt_tokens, 345 if has_output else 0, cached_tokens=200, reasoning_tokens=45 if has_output else 0)
    usage_there = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    theirs = genai_prices.calc_price(usage_there, model, provider_id=service, genai_request_timestamp=at)
    assert found.source == "genai-prices"
    assert found.version == genai_prices.__version__
    cost = found.cost_nanousd(usage)
    assert cost
    assert abs(cost - theirs.total_price * 10**9) <= Decimal("0.5")


async def test_long_prompts_are_dearer(prices: PriceList) -> None:
    price = await prices.find("google", "gemini-2.5-pro")
    assert price
    assert price.tiers
    assert price.units_for(200_000) == price.units_for(None) == price.units
    assert price.units_for(200_001).input == 2 * price.units.input


async def test_prices_of_the_settings_win(prices: PriceList) -> None:
    async def found(service: str, model: str, *, is_local: bool = False) -> Price:
        price = await prices.find(service, model, is_local=is_local)
        assert price
        return price

    assert (await found("openai", "gpt-4o")).source == "settings"
    assert (await found("openai", "gpt-4o")).cost_nanousd(Usage(10, 10)) == 30_000
    assert (await found("mine", "any", is_local=True)).cost_nanousd(Usage(10, 10, reasoning_tokens=5)) == 4000
    assert (await found("mine", "small")).cost_nanousd(Usage(10, 10)) == 500
    assert (await found("ollama", "gpt-4o", is_local=True)).source == "local"


@pytest.mark.parametrize(
    ("service", "model", "is_known"),
    [
        ("openai", "no-such-model", False),
        ("openai-like", "gpt-4o", False),  # a server of the user's own, whatever its models are called
        ("groq", "llama-3.1-8b-instant", False),  # a name alone does not say where it is
        ("groq-account", "llama-3.1-8b-instant", True),  # its address does
        ("huggingface", "meta-llama/Llama-3.3-70B-Instruct", False),  # whoever is asked
        ("huggingface", "meta-llama/Llama-3.3-70B-Instruct:together", True),
        ("openrouter", "deepseek/deepseek-r1:free", True),
        ("openai", "moderation", False),  # the list names no price
    ],
)
async def test_nobody_guesses_a_price(prices: PriceList, service: str, model: str, *, is_known: bool) -> None:
    assert (await prices.find(service, model) is not None) == is_known


async def test_free_is_known_to_be_free(prices: PriceList) -> None:
    price = await prices.find("openrouter", "deepseek/deepseek-r1:free")
    assert price
    assert price.cost_nanousd(None) == 0


async def test_names_that_callers_invent_are_not_remembered_for_ever(prices: PriceList) -> None:
    for number in range(2500):
        await prices.find("cohere", f"invented-{number}")
    shipped = await prices.load()
    assert len(shipped._models) <= 2000


def test_money_is_shown_with_all_its_digits() -> None:
    assert [as_money(amount) for amount in (0, 2_100_000, 1_500_000_000, 1)] == [
        "$0.00",
        "$0.0021",
        "$1.50",
        "$0.000000001",
    ]
    assert nanousd(0.1) == 100_000_000
