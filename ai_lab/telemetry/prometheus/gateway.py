"""What the gateway reports: look-ups, retries, fallbacks, limits, queues, breakers, costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ai_lab.telemetry.prometheus.families import PREFIX
from ai_lab.telemetry.prometheus.registry import Reading, Registry

_KINDS = ("exact", "semantic", "joined")
_SCOPES = ("concurrency", "requests", "tokens")
#: States in which a breaker holds requests back; one that is closed has no series.
_SHOWN = ("open", "half_open")


class GatewayInstruments:
    """Counts what the gateway does. Its methods cost about a microsecond and may be called from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._lookups = registry.number("llm_cache_requests_total")
        self._hits = registry.number("llm_cache_hits_total")
        self._limited = registry.number("llm_rate_limited_total")
        self._retries = registry.number("llm_retries_total")
        self._fallbacks = registry.number("llm_fallbacks_total")
        self._transitions = registry.number("llm_circuit_breaker_transitions_total")
        self._cost_usd = registry.number("llm_cost_usd_total")
        self._unpriced = registry.number("llm_unpriced_requests_total")
        self._refusals = registry.number("llm_budget_refusals_total")
        self._read_breakers: Callable[[], Iterable[tuple[str, str, str]]] | None = None
        self._read_waiting: Callable[[], Iterable[tuple[str, int]]] | None = None
        for kind in _KINDS:  # series that begin at 0 let rate() see the first event
            self._lookups(kind)
            self._hits(kind)
        for scope in _SCOPES:
            self._limited(scope)
        registry.register(self._present)

    def cache_lookup(self, kind: str, is_hit: bool) -> None:
        """Count a look-up in the answer cache; ``kind`` is exact, semantic or joined."""
        self._lookups(kind).inc()
        if is_hit:
            self._hits(kind).inc()

    def limited(self, scope: str) -> None:
        """Count a request that waited for, or was refused by, a limit: concurrency, requests or tokens."""
        self._limited(scope).inc()

    def retry(self, provider: str, error_code: str) -> None:
        """Count a request that is sent again."""
        self._retries(provider, error_code).inc()

    def fallback(self, from_provider: str, to_provider: str) -> None:
        """Count a request that is passed on to another model."""
        self._fallbacks(from_provider, to_provider).inc()

    def breaker(self, provider: str, model: str, state: str) -> None:
        """Count a breaker's change to a state."""
        self._transitions(provider, model, state).inc()

    def breakers(self, read: Callable[[], Iterable[tuple[str, str, str]]]) -> None:
        """Show what ``read`` returns at each scrape: provider, model and state of breakers that are not closed."""
        self._read_breakers = read

    def waiting(self, read: Callable[[], Iterable[tuple[str, int]]]) -> None:
        """Show what ``read``, called from another thread, returns at each scrape: services, how many wait for them."""
        self._read_waiting = read

    def cost(self, provider: str, model: str, cost_nanousd: int | None) -> None:
        """Count what one attempt cost; None: not known."""
        self._refusals(provider)  # begins at 0, as above: an alert waits for the first one
        if cost_nanousd is None:
            self._unpriced(provider, model).inc()
        else:
            self._cost_usd(provider, model).inc(cost_nanousd / 1e9)

    def budget_refusal(self, provider: str) -> None:
        """Count a request that a budget refused."""
        self._refusals(provider).inc()

    def _present(self) -> Iterator[Reading]:
        for provider, model, state in self._read_breakers() if self._read_breakers else ():
            for possible in _SHOWN:
                yield PREFIX + "llm_circuit_breaker_state", (provider, model, possible), state == possible
        for provider, count in self._read_waiting() if self._read_waiting else ():
            yield PREFIX + "llm_requests_waiting", (provider,), count
