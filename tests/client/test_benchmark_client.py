"""Benchmarks through both clients, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ai_lab.benchmarks import Plan, Run
from ai_lab.benchmarks.asking import plan_for
from ai_lab.benchmarks.schemas import Progress
from ai_lab.client import AsyncLabClient, LabClient, benchmark_calls
from ai_lab.errors import BenchmarkNotFound, BenchmarkRunning, InvalidRequest, ModelNotFound, ServerUnreachable
from tests.server import ServerProcess, free_port

Client = LabClient | AsyncLabClient
_QUICK: dict[str, Any] = {"iterations": 6, "output_tokens": 8, "idle_seconds": 0, "calibration_seconds": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("client") / "data") as server:
        yield server


@pytest.fixture(params=[LabClient, AsyncLabClient])
async def client(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Client]:
    client: Client = request.param(server.url)
    yield client
    if isinstance(client, LabClient):
        client.close()
    else:
        await client.close()


async def got(value: Any) -> Any:
    """Return what either kind of client returns; what it yields as a list."""
    if hasattr(value, "__aiter__"):
        return [item async for item in value]
    if hasattr(value, "__await__"):
        return await value
    return list(value) if hasattr(value, "__next__") else value


def quick(**fields: Any) -> Plan:
    return plan_for("echo/echo", **{**_QUICK, **fields})


async def test_a_run_from_its_start_to_its_end(client: Client) -> None:
    runs = client.benchmarks
    run = await got(runs.start(quick(title="mine")))
    assert (run.title, run.kind, run.report) == ("mine", "run", None)
    changes = await got(runs.events(run.id))
    assert isinstance(changes[0], Progress)
    assert isinstance(changes[-1], Run)
    assert changes[-1].status == "complete"

    ended = await got(runs.wait(run.id))
    assert (ended.status, ended.progress.done, ended.report.cells[0].counts.ok) == ("complete", 6, 6)
    assert (await got(runs.page(limit=1))).data[0].id == run.id
    records = await got(runs.records(run.id))
    assert sum(record.phase == "measured" for record in records) == 6
    assert (await got(runs.report(run.id, "html"))).startswith(b"<!doctype html>")

    again = await got(runs.wait((await got(runs.rerun(run.id))).id))
    assert again.rerun_of == run.id
    compared = await got(runs.compare([run.id, again.id]))
    assert compared.runs == [run.id, again.id]
    assert all(one.is_historical for one in compared.comparisons)
    await got(runs.delete(run.id))
    with pytest.raises(BenchmarkNotFound, match=run.id):
        await got(runs.get(run.id))


async def test_a_run_is_cancelled_and_gone_on_with(client: Client) -> None:
    runs = client.benchmarks
    run = await got(runs.start(quick(iterations=100_000)))
    while (await got(runs.get(run.id))).status == "queued":
        pass
    with pytest.raises(BenchmarkRunning):
        await got(runs.delete(run.id))
    await got(runs.cancel(run.id))
    assert (await got(runs.wait(run.id))).status == "cancelled"
    assert (await got(runs.resume(run.id))).status in {"queued", "running"}
    await got(runs.cancel(run.id))
    assert (await got(runs.wait(run.id))).resumed == 1


async def test_one_call_gives_the_result(client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = await got(client.benchmark("echo/echo", **_QUICK))
    assert (result.status, len(result.cells), result.cell().counts.ok) == ("complete", 1, 6)
    assert "echo/echo" in capfd.readouterr().err  # the bar
    assert len(result.requests_frame()) == len(result.records) >= 6
    assert b"<svg" in result.save(tmp_path / "run.html").read_bytes()
    assert (await got(client.benchmark(plan=quick(title="in full"), progress=False))).run.title == "in full"
    assert capfd.readouterr().err == ""


async def test_a_key_reaches_the_server_and_is_not_given_back(client: Client, server: ServerProcess) -> None:
    plan = plan_for("m", url=f"http://127.0.0.1:{free_port()}", api_key="sk-secret", **_QUICK)
    run = await got(client.benchmarks.wait((await got(client.benchmarks.start(plan))).id))
    assert run.status == "failed"
    with pytest.raises(InvalidRequest, match="'m' had an API key"):
        await got(client.benchmarks.rerun(run.id))
    again = await got(client.benchmarks.rerun(run.id, api_keys={"m": "sk-secret"}))
    await got(client.benchmarks.wait(again.id))
    assert b"sk-secret" not in await got(client.benchmarks.report(run.id, "json"))
    assert "sk-secret" not in server.log


async def test_what_is_wrong_is_raised(client: Client) -> None:
    with pytest.raises(ModelNotFound, match="echo/echo"):
        await got(client.benchmark("echo/ekko", **_QUICK))
    with pytest.raises(InvalidRequest, match=r"^iterations: "):
        await got(client.benchmark("echo/echo", iterations=0))
    for call in (client.benchmarks.get, client.benchmarks.cancel, client.benchmarks.delete, client.benchmarks.events):
        with pytest.raises(BenchmarkNotFound):
            await got(call("no such run"))
    nowhere = type(client)(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServerUnreachable):
        await got(nowhere.benchmark("echo/echo", **_QUICK))


async def test_who_waits_is_not_told_of_a_restart(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, LabClient(server.url) as client:
        run = client.benchmarks.start(quick(rate=2, iterations=8))
        waiting = asyncio.create_task(asyncio.to_thread(client.benchmarks.wait, run.id))
        while not (await asyncio.to_thread(client.benchmarks.get, run.id)).progress.done:
            pass
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        assert (await waiting).status == "complete"


def test_what_was_deleted_by_a_lost_call_is_no_error() -> None:
    assert benchmark_calls.delete("x").settled_by is BenchmarkNotFound
