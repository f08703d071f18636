"""Health of a real database and real providers; what the machine is like comes as a sample."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.database.setup import newest_revision
from ai_lab.providers import Providers
from ai_lab.settings import Settings
from ai_lab.telemetry import ComponentHealth, Health, HealthReport
from ai_lab.telemetry.machine.sampler import Snapshot
from tests.fakes.http_server import Reply
from tests.fakes.ollama_server import OllamaServer
from tests.server import free_port
from tests.telemetry.samples import snapshot_of


@asynccontextmanager
async def _health(
    url: str,
    tmp_path: Path,
    *,
    ollama: str = "http://127.0.0.1:9",
    snapshot: Snapshot | None = None,
    behind_seconds: float = 0.0,
) -> AsyncIterator[Health]:
    settings = Settings(data_dir=tmp_path, ollama_host=ollama, database_url=None)
    database, providers = Database(make_url(url)), Providers(settings)
    latest = (lambda: snapshot) if snapshot else None
    try:
        yield Health(
            database,
            providers,
            tmp_path,
            newest_revision=newest_revision(),
            latest=latest,
            behind_seconds=lambda: behind_seconds,
        )
    finally:
        await providers.close()
        await database.close()


def _of(report: HealthReport, component: str) -> ComponentHealth:
    return next(one for one in report.components if one.component == component)


async def test_a_lab_in_order_is_healthy_and_says_what_it_saw(database_url: str, tmp_path: Path) -> None:
    async with _health(database_url, tmp_path, snapshot=snapshot_of()) as health:
        report = await health.report()
    assert report.status == "healthy"
    database = _of(report, "database")
    assert (database.status, database.observed_unit) == ("healthy", "ms")
    assert database.observed_value is not None
    assert database.observed_value > 0
    assert database.latency_ms is not None
    assert database.latency_ms >= database.observed_value
    disk = _of(report, "disk")
    assert disk.observed_unit == "bytes"
    assert disk.observed_value
    assert {"sampler", "memory", "provider:embedded", "provider:echo"} <= {one.component for one in report.components}
    assert all(abs((now() - one.checked_at).total_seconds()) < 60 for one in report.components)


async def test_tables_of_another_version_make_it_unhealthy(database_url: str, tmp_path: Path) -> None:
    database = Database(make_url(database_url))
    async with database.transaction() as db:
        await db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await database.close()
    async with _health(database_url, tmp_path) as health:
        assert (await health.database()).status == "unhealthy"
        report = await health.report()
    assert report.status == "unhealthy"
    found = _of(report, "database")
    assert "9999" in found.detail
    assert found.remedy


async def test_a_database_that_is_gone_makes_it_unhealthy_with_the_remedy(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://nobody:secret-word@127.0.0.1:{free_port()}/none"
    async with _health(url, tmp_path) as health:
        report = await health.report()
    found = _of(report, "database")
    assert (report.status, found.status) == ("unhealthy", "unhealthy")
    assert found.remedy
    assert "secret-word" not in report.model_dump_json()


async def test_a_service_that_hangs_delays_nothing_and_degrades_nothing(database_url: str, tmp_path: Path) -> None:
    async with OllamaServer() as ollama:
        for path in ("/api/version", "/api/tags"):
            ollama.script(path, Reply(ending="hang"))
        async with _health(database_url, tmp_path, ollama=ollama.origin) as health:
            report = await asyncio.wait_for(health.report(), timeout=60)
    found = _of(report, "provider:ollama")
    assert found.detail.startswith("not reachable")
    assert found.remedy
    assert report.status == "healthy"


async def test_a_storm_of_probes_costs_one_check(database_url: str, tmp_path: Path) -> None:
    async with OllamaServer() as ollama, _health(database_url, tmp_path, ollama=ollama.origin) as health:
        reports = await asyncio.gather(*(health.report() for _ in range(100)))
        asked = len(ollama.requests)
        assert all(report is reports[0] for report in reports)
        assert await health.report() is reports[0]
        assert len(ollama.requests) == asked
    assert 1 <= asked <= 2


@pytest.mark.parametrize(
    ("snapshot", "component"),
    [
        (snapshot_of(memory_percent=97.0), "memory"),
        (snapshot_of(age_seconds=60.0), "sampler"),
        (snapshot_of(gpu_celsius=95.0), "gpu:0"),
        (snapshot_of(gpu_status="error"), "gpu"),
    ],
)
async def test_what_runs_short_degrades_and_names_the_remedy(
    snapshot: Snapshot, component: str, migrated_file: Path, tmp_path: Path
) -> None:
    async with _health(f"sqlite+aiosqlite:///{migrated_file}", tmp_path, snapshot=snapshot) as health:
        report = await health.report()
    found = _of(report, component)
    assert (report.status, found.status) == ("degraded", "degraded")
    assert found.remedy


async def test_sampling_that_is_switched_off_is_no_fault(migrated_file: Path, tmp_path: Path) -> None:
    async with _health(f"sqlite+aiosqlite:///{migrated_file}", tmp_path) as health:
        report = await health.report()
    assert _of(report, "sampler").detail == "switched off by ENABLE_METRICS"
    assert report.status == "healthy"


async def test_a_database_without_its_tables_is_a_finding_and_no_error(database_url: str, tmp_path: Path) -> None:
    database = Database(make_url(database_url))
    async with database.transaction() as db:
        await db.exec_driver_sql("DROP TABLE alembic_version")
    await database.close()
    async with _health(database_url, tmp_path) as health:
        found = await health.database()
        assert (await health.report()).status == "unhealthy"
    assert found.status == "unhealthy"
    assert found.remedy


async def test_samples_that_are_not_kept_degrade(migrated_file: Path, tmp_path: Path) -> None:
    url, behind = f"sqlite+aiosqlite:///{migrated_file}", 300.0
    async with _health(url, tmp_path, snapshot=snapshot_of(), behind_seconds=behind) as health:
        report = await health.report()
    assert (report.status, _of(report, "history").status) == ("degraded", "degraded")
    assert _of(report, "history").remedy
