"""What is reported to the instruments shows up in Prometheus and in the lab's own percentiles, and stays bounded."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from ai_lab.database import Database
from ai_lab.telemetry.prometheus.families import FAMILIES
from ai_lab.telemetry.prometheus.instruments import Instruments
from ai_lab.telemetry.prometheus.own_process import CountingHandler
from ai_lab.telemetry.prometheus.registry import MOST_LABEL_SETS
from tests.telemetry.scrape import Recorded, samples_of


def test_names_follow_prometheus_conventions() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith(("ai_lab_", "process_"))
        assert (family.kind == "counter") == family.name.endswith("_total"), family
        assert bool(family.buckets) == (family.kind == "histogram"), family
        assert list(family.buckets) == sorted(set(family.buckets)), family
        assert not {"type", "service_name", "env", "le", "job", "instance"} & set(family.labels), family
        assert family.help.endswith("."), family


async def test_requests_are_counted_and_timed_for_both_readers() -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    instruments.request_began()
    instruments.request_began()
    instruments.request_ended("POST", "/chat", 200, 0.3, 0.1, has_left=False)
    instruments.request_ended("BREW", "unmatched", 500, 0.2, None, has_left=True)
    instruments.request_began()
    shown = await samples_of(instruments.registry)
    assert shown["ai_lab_http_requests_in_progress"][()].value == 1
    assert {key: sample.value for key, sample in shown["ai_lab_http_requests_total"].items()} == {
        ("POST", "/chat", "200"): 1,
        ("other", "unmatched", "500"): 1,
    }
    assert shown["ai_lab_http_request_duration_seconds_sum"]["POST", "/chat"].value == pytest.approx(0.3)
    assert shown["ai_lab_http_time_to_first_byte_seconds_sum"]["/chat",].value == pytest.approx(0.1)
    assert list(shown["ai_lab_http_client_disconnects_total"]) == [("unmatched",)]
    assert recorded.calls == [("http", "POST /chat", False), ("http", "other unmatched", True)]


async def test_functions_and_log_entries_are_counted() -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    instruments.function("load", 0.5)
    instruments.function("load", 0.5, failed=True)
    logger = logging.getLogger("test_instruments")
    handler = CountingHandler(instruments.log_message)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.error("one")
        logger.log(35, "between two levels")
    finally:
        logger.removeHandler(handler)
    shown = await samples_of(instruments.registry)
    assert shown["ai_lab_function_calls_total"]["load",].value == 2
    assert shown["ai_lab_function_failures_total"]["load",].value == 1
    assert shown["ai_lab_function_duration_seconds_count"]["load",].value == 2
    assert shown["ai_lab_log_messages_total"]["error",].value == 1
    assert shown["ai_lab_log_messages_total"]["other",].value == 1
    assert shown["ai_lab_log_messages_total"]["warning",].value == 0
    assert recorded.calls == [("function", "load", False), ("function", "load", True)]


async def test_health_shows_only_what_was_last_reported() -> None:
    instruments = Instruments(Recorded())
    instruments.health({"database": "healthy", "gpu:0": "degraded"})
    instruments.health({"database": "degraded"})
    shown = (await samples_of(instruments.registry))["ai_lab_health_status"]
    assert {key: sample.value for key, sample in shown.items()} == {
        ("database", "healthy"): 0,
        ("database", "degraded"): 1,
        ("database", "unhealthy"): 0,
    }


async def test_too_many_label_sets_are_counted_together_and_none_is_lost() -> None:
    instruments = Instruments(Recorded())
    most = MOST_LABEL_SETS["histogram"]

    def call() -> None:
        for number in range(most + 50):
            instruments.function(f"function_{number}", 0.01)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = await samples_of(instruments.registry)
    counts = shown["ai_lab_function_duration_seconds_count"]
    assert len(counts) == most + 1
    assert sum(sample.value for sample in counts.values()) == 3 * (most + 50)
    assert counts["other",].value == 3 * 50
    dropped = shown["ai_lab_metrics_series_dropped_total"]
    assert dropped["ai_lab_function_duration_seconds",].value == 3 * 50


async def test_two_labs_in_one_process_share_nothing() -> None:
    first, second = Instruments(Recorded()), Instruments(Recorded())
    first.function("load", 0.5)
    assert "ai_lab_function_calls_total" not in await samples_of(second.registry)
    assert "ai_lab_function_calls_total" in await samples_of(first.registry)


async def test_the_database_reports_statements_and_units_of_work(database_url: str) -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    database = Database(make_url(database_url), observe=instruments.database)
    instruments.database_connections(database.connections_in_use)
    instruments.database_size({"db": 4096, "wal": 0})
    try:
        async with database.transaction() as db:
            await db.execute(text("INSERT INTO server_instances SELECT * FROM server_instances WHERE 1 = 0"))
            await db.execute(text("UPDATE server_instances SET host = host"))
            await db.execute(text("DELETE FROM server_instances"))
        async with database.reading() as db:
            await db.execute(text("SELECT 1"))
            during = await samples_of(instruments.registry)
        with pytest.raises(DBAPIError):
            async with database.reading() as db:
                await db.execute(text("SELECT nothing FROM nowhere"))
    finally:
        await database.close()
    shown = await samples_of(instruments.registry)
    counts = {key[0]: sample.value for key, sample in shown["ai_lab_db_query_duration_seconds_count"].items()}
    assert counts.pop("other", 0) >= 0  # what the driver asks when it connects
    assert counts.pop("select") >= 2
    assert counts == {"insert": 1, "update": 1, "delete": 1, "transaction": 1, "read": 2}
    assert shown["ai_lab_db_query_failures_total"]["select",].value == 1
    assert shown["ai_lab_db_query_failures_total"]["read",].value == 1
    assert shown["ai_lab_db_query_failures_total"]["transaction",].value == 0
    assert shown["ai_lab_db_write_wait_seconds_count"][()].value == (1 if database.is_sqlite else 0)
    assert during["ai_lab_db_pool_connections"]["in_use",].value == 1
    assert shown["ai_lab_db_pool_connections"]["in_use",].value == 0
    assert shown["ai_lab_db_size_bytes"]["db",].value == 4096
    assert ("database", "read", True) in recorded.calls


async def test_a_writer_that_waits_is_seen_to_wait(tmp_path_factory: pytest.TempPathFactory) -> None:
    seen: list[tuple[str, float, bool]] = []
    file = tmp_path_factory.mktemp("wait") / "ai_lab.sqlite"
    database = Database(make_url(f"sqlite+aiosqlite:///{file}"), observe=lambda *call: seen.append(call))

    async def write(hold_seconds: float) -> None:
        async with database.transaction() as db:
            await db.execute(text("SELECT 1"))
            await asyncio.sleep(hold_seconds)

    try:
        await asyncio.gather(write(0.2), write(0.0))
    finally:
        await database.close()
    waits = sorted(seconds for what, seconds, _ in seen if what == "write_wait")
    assert len(waits) == 2
    assert waits[1] >= 0.2
