"""What keeps samples and counts goes on through whatever goes wrong, and a restart finds what was kept."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ai_lab.clock import now
from ai_lab.lab import Lab
from ai_lab.settings import Settings


def _settings(url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, ollama_host="http://127.0.0.1:9", database_url=url, metrics_interval_seconds=1)


async def test_an_unexpected_error_is_said_once_and_tried_again(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Lab.open(_settings(database_url, tmp_path)) as lab:
        telemetry = lab.telemetry
        for task in telemetry._tasks:  # what they do is done here instead, step by step
            task.cancel()
        await asyncio.wait(telemetry._tasks)
        await telemetry._supervised(telemetry._keep_batch)
        async with lab.database.transaction() as db:
            await db.exec_driver_sql("ALTER TABLE server_instances RENAME TO gone")
        kept_at = telemetry._kept_at
        try:
            for _ in range(3):
                await telemetry._supervised(telemetry._keep_batch)
        finally:
            async with lab.database.transaction() as db:
                await db.exec_driver_sql("ALTER TABLE gone RENAME TO server_instances")
        assert telemetry._kept_at == kept_at
        assert len([entry for entry in caplog.records if "could not keep up" in entry.message]) == 1
        await telemetry._supervised(telemetry._keep_batch)
        assert telemetry._kept_at > kept_at
        assert telemetry.behind_seconds() < 30


async def test_an_orderly_stop_keeps_everything(database_url: str, tmp_path: Path) -> None:
    settings = _settings(database_url, tmp_path)
    async with Lab.open(settings) as lab:
        for _ in range(5):
            lab.telemetry.instruments.function("work", 0.25)
        before = await lab.telemetry.system_metrics()
        deadline = time.monotonic() + 60
        while (await lab.telemetry.system_metrics()).timestamp < before.timestamp + timedelta(seconds=2):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    async with Lab.open(settings) as lab:
        summary = await lab.telemetry.summary(1)
        (function,) = [row for row in summary.functions if row.name == "work"]
        assert function.count == 5
        kept = await lab.telemetry.history.query("cpu_usage_percent", start=now() - timedelta(hours=1), end=now())
        assert kept.series[0].points
