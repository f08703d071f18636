"""The composition root: builds everything once and closes it in reverse; server, scripts and tests all use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from ai_lab.agents import Agents
from ai_lab.benchmarks import Benchmarks
from ai_lab.cache import AnswerCache
from ai_lab.chat import Chat, Completions
from ai_lab.chat.replay import Replays
from ai_lab.clock import now
from ai_lab.conversations import Conversations
from ai_lab.costs import Costs
from ai_lab.database import Database, database_address, instances
from ai_lab.database.setup import SetupReport, prepare_database
from ai_lab.errors import DatabaseUnavailable
from ai_lab.gateway import Gateway
from ai_lab.gateway.breakers import Breakers
from ai_lab.gateway.pipeline import Parts
from ai_lab.gateway.queues import ServiceQueue
from ai_lab.gateway.schemas import BreakerState
from ai_lab.gateway.tracing import load_of
from ai_lab.logging import SlowOperations
from ai_lab.providers import Providers
from ai_lab.providers.embedder import MODEL as EMBEDDER_MODEL
from ai_lab.settings import Settings
from ai_lab.telemetry import Health, Instruments, Operations, Telemetry, VaultReading
from ai_lab.traces import Traces
from ai_lab.vault import Vault

_RENEW_SECONDS = 15.0
_CHECKPOINT_EVERY = 20  # renewals: five minutes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lab:
    """Everything an AI lab has, ready to use. Open it with ``async with Lab.open() as lab``."""

    settings: Settings
    database: Database
    setup: SetupReport
    vault: Vault
    providers: Providers
    gateway: Gateway
    breakers: Breakers
    queue: ServiceQueue
    cache: AnswerCache
    costs: Costs
    traces: Traces
    replays: Replays
    conversations: Conversations
    agents: Agents
    chat: Chat
    completions: Completions
    benchmarks: Benchmarks
    health: Health
    telemetry: Telemetry
    slow: SlowOperations
    started_at: datetime

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None) -> AsyncIterator[Lab]:
        """Open a lab: migrate the database, close what a dead process left unfinished, and start upkeep.

        Args:
            settings: default: read from the environment and ``.env``.

        Raises:
            StartupError: with the remedy; nothing was changed then.
        """
        settings = settings or Settings.load()
        address = database_address(settings)
        setup = await prepare_database(address)
        async with AsyncExitStack() as closing:
            operations = Operations()
            slow = SlowOperations(settings.slow_operation_ms)
            instruments = Instruments(operations, slow)
            database = Database(address, observe=instruments.database)
            closing.push_async_callback(database.close)
            async with database.transaction() as db:
                instance_id = await instances.register(db)
            conversations = Conversations(database)
            await _close_orphans(database, conversations, instance_id)
            vault = await Vault.open(settings, database, observe=instruments.vault_operation)
            closing.push_async_callback(vault.close)
            instruments.vault(lambda: _reading(vault))
            providers = Providers(settings, observe=instruments.inference, secrets=vault)
            closing.push_async_callback(providers.close)
            breakers = Breakers(
                database,
                failures=settings.breaker_failures,
                open_seconds=settings.breaker_seconds,
                observe=instruments.gateway.breaker,
            )
            closing.push_async_callback(breakers.close)
            instruments.gateway.breakers(
                lambda: [(one.provider, one.model, one.state) for one in _held(breakers.known())]
            )
            closing.push_async_callback(_leave, database, instance_id)
            telemetry = Telemetry(settings, database, operations, instruments, instance_id)
            health = Health(
                database,
                providers,
                settings.data_path(),
                newest_revision=setup.newest,
                latest=telemetry.latest if telemetry.is_sampling else None,
                behind_seconds=telemetry.behind_seconds,
                interval_seconds=settings.metrics_interval_seconds,
                vault=lambda: _state(vault),
                breakers=lambda: _reasons(breakers),
            )
            closing.push_async_callback(telemetry.close)
            await telemetry.start(health)
            cache = AnswerCache.open(
                settings,
                database,
                embed=lambda texts: _embed(providers, texts),
                observe=instruments.gateway.cache_lookup,
                existing=conversations.existing,
            )
            closing.push_async_callback(cache.close)
            conversations.when_deleted(cache.forget)
            costs = Costs(settings, database, watts=lambda: _watts(telemetry))
            closing.push_async_callback(costs.close)
            traces = Traces(settings, database, host_load=lambda: load_of(telemetry), existing=conversations.existing)
            closing.push_async_callback(traces.close)
            conversations.when_deleted(traces.forget)
            queue = ServiceQueue(settings, database, observe=instruments.gateway.limited)
            instruments.gateway.waiting(lambda: [(one.service, one.waiting) for one in queue.uses()])
            closing.push_async_callback(queue.close)
            parts = Parts(breakers=breakers, queue=queue, cache=cache, costs=costs, traces=traces)
            gateway = Gateway(settings, providers, parts, observe=instruments.gateway)
            closing.push_async_callback(gateway.close)
            chat = Chat(conversations, gateway, instance_id, instruments.chat_turn)
            benchmarks = Benchmarks(settings, database, providers, instance_id, observe=instruments.benchmark_run)
            upkeep = asyncio.create_task(_keep_up(database, conversations, benchmarks, instance_id))
            closing.push_async_callback(_end, upkeep)
            closing.push_async_callback(chat.close)
            completions = Completions(gateway)
            closing.push_async_callback(completions.close)
            closing.push_async_callback(benchmarks.close)
            yield cls(
                settings=settings,
                database=database,
                setup=setup,
                vault=vault,
                providers=providers,
                gateway=gateway,
                breakers=breakers,
                queue=queue,
                cache=cache,
                costs=costs,
                traces=traces,
                replays=Replays(traces, conversations, gateway),
                conversations=conversations,
                agents=Agents(database),
                chat=chat,
                completions=completions,
                benchmarks=benchmarks,
                health=health,
                telemetry=telemetry,
                slow=slow,
                started_at=now(),
            )


def _reading(vault: Vault) -> VaultReading:
    """Return what metrics show of the vault."""
    is_sealed = vault.status().state == "sealed"
    return VaultReading(vault.counts(), is_sealed, None if is_sealed else vault.audit_head())


def _state(vault: Vault) -> tuple[str, str | None, str | None]:
    """Return what health shows of the vault."""
    status = vault.status()
    return status.root_key_source, status.reason, status.remedy


def _held(states: list[BreakerState]) -> list[BreakerState]:
    """Return the models that are left alone now; one whose wait is over is asked by the next request."""
    return [state for state in states if state.state == "half_open" or state.retry_after_seconds]


async def _reasons(breakers: Breakers) -> list[tuple[str, str]]:
    """Return what health shows of the models that are left alone, by whichever server."""
    held = _held(await breakers.states())
    return [(f"{one.provider}/{one.model}", one.reason or one.error_code or "failures in a row") for one in held]


def _watts(telemetry: Telemetry) -> float | None:
    """Return what the GPUs draw by the newest sample, None where none is measured."""
    snapshot = telemetry.latest()
    measured = [gpu.power_watts for gpu in snapshot.metrics.gpus if gpu.power_watts is not None] if snapshot else []
    return sum(measured) if measured else None


async def _embed(providers: Providers, texts: Sequence[str]) -> list[list[float]]:
    """Return vectors of questions, for the cache."""
    return (await providers.get("embedder").embed(EMBEDDER_MODEL, texts)).vectors


async def _close_orphans(database: Database, conversations: Conversations, instance_id: str) -> None:
    async with database.transaction() as db:
        await instances.forget_dead(db, instance_id)
    closed = await conversations.close_orphans()
    if closed:
        logger.warning("%d answers that a stopped server left unfinished are marked interrupted", closed)


async def _keep_up(database: Database, conversations: Conversations, benchmarks: Benchmarks, instance_id: str) -> None:
    """Say every quarter of a minute that this process lives, and tidy up after others that do not."""
    rounds = 0
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        rounds += 1
        try:
            async with database.transaction() as db:
                await instances.renew(db, instance_id)
            await _close_orphans(database, conversations, instance_id)
            await benchmarks.adopt_orphans()
            if rounds % _CHECKPOINT_EVERY == 0:
                await database.checkpoint()
        except DatabaseUnavailable as error:
            logger.warning("upkeep skipped: %s", error.detail)


async def _leave(database: Database, instance_id: str) -> None:
    with contextlib.suppress(DatabaseUnavailable):  # the next start finds the process gone and tidies up
        async with database.transaction() as db:
            await instances.unregister(db, instance_id)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
