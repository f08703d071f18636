"""The rules of benchmark runs: asked for, watched, cancelled, taken up again, compared and deleted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from ai_lab.benchmarks.archive import Archive, found, plan_of, run_of
from ai_lab.benchmarks.comparing import comparison_job
from ai_lab.benchmarks.events import packed_json
from ai_lab.benchmarks.execution import Workplace, compared, insist
from ai_lab.benchmarks.intake import (
    Prepared,
    first_progress,
    keyed_arms,
    kind_of,
    prepare,
    request_hash,
    title_of,
    with_keys,
)
from ai_lab.benchmarks.job import without_keys
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.queue import RunQueue
from ai_lab.benchmarks.repository import BenchmarkRepository
from ai_lab.benchmarks.schemas import ENDED, Comparison, Progress, Run
from ai_lab.clock import new_id, now
from ai_lab.database import Database
from ai_lab.errors import (
    BenchmarkNotResumable,
    BenchmarkQueueFull,
    BenchmarkRunning,
    IdempotencyKeyReused,
    LabError,
    ServerStopping,
)
from ai_lab.providers import Providers
from ai_lab.settings import Settings

#: Between two looks at a run that another server process measures.
_LOOK_SECONDS = 1.0
#: A run that takes its server down must not do so for ever.
_MOST_RESUMED = 3
#: How long a run is left to the machine where it was begun, should that come back.
_PATIENCE = timedelta(minutes=10)
#: How long a run of this process may be known to the database alone before it counts as forgotten.
_FORGOTTEN_AFTER = timedelta(minutes=1)


class Benchmarks(Archive):
    """Benchmark runs of this lab. Each is measured by a process of its own and stored while it proceeds.

    A target (a server, or this machine with everything on it) has one run at a time, whichever server process asked;
    the others wait in the order in which they came. When the server stops, a run that is being measured goes back into
    the queue, and the next start goes on with it after its last complete block.

    Args:
        settings: of the lab.
        database: the lab's.
        providers: the lab's: what a model's name means.
        instance_id: of this server process, see ``ai_lab.database.instances``.
        worker_command: another program than ours that measures.
        observe: is told the status and grade of every run that ends here.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        providers: Providers,
        instance_id: str,
        *,
        worker_command: Sequence[str] | None = None,
        observe: Callable[[str, str | None], None] = lambda _status, _grade: None,
    ) -> None:
        super().__init__(database)
        self._providers = providers
        self._instance_id = instance_id
        self._host = socket.gethostname()[:255]
        self._place = Workplace(settings, database, instance_id, observe, worker_command)
        self._queue = RunQueue(self._place)
        self._adopting: set[str] = set()
        self._has_adopted = False
        self._comparing = asyncio.Lock()  # one such computation at a time is enough for a machine

    async def start(self, plan: Plan, *, idempotency_key: str | None = None, rerun_of: str | None = None) -> Run:
        """Put a run into the queue; it starts when its targets are free.

        Raises:
            BenchmarkQueueFull: too many wait.
            IdempotencyKeyReused: the key came with another plan before; with the same one, that run is returned.
            InvalidRequest: an arm asks for what its target cannot do.
            ModelNotFound: no provider has a model; the text names the nearest ones.
        """
        self._see_that_it_is_open()
        await self._adopt_once()
        asked = request_hash(plan, rerun_of)
        if idempotency_key and (known := await self._asked_before(idempotency_key, asked)):
            return known
        self._see_that_there_is_room()
        prepared = await prepare(plan, self._providers)
        moment = now()
        values = {
            "id": new_id(),
            "status": "queued",
            "kind": kind_of(plan),
            "title": title_of(prepared.plan),
            "rerun_of": rerun_of,
            "keyed_arms": keyed_arms(prepared.plan),
            "idempotency_key": idempotency_key,
            "request_hash": asked,
            "created_at": moment,
            "updated_at": moment,
            **self._waiting(prepared),
        }
        # In a thread: megabytes of prompts take seconds to compress.
        stored = await asyncio.to_thread(lambda: packed_json(without_keys(prepared.plan).model_dump(mode="json")))
        is_new = await self._queue.see_through(self._store(values, stored, prepared))
        if not is_new and idempotency_key and (known := await self._asked_before(idempotency_key, asked)):
            return known
        return run_of({**values, "plan": stored})

    async def rerun(
        self, run_id: str, *, api_keys: Mapping[str, str] | None = None, idempotency_key: str | None = None
    ) -> Run:
        """Ask for the same once more, as a new run.

        Args:
            run_id: of the run to repeat.
            api_keys: by name of the arm, for those that had one.
            idempotency_key: as for ``start``.

        Raises:
            BenchmarkNotFound: there is no such run.
            InvalidRequest: a key is missing.
        """
        row = await self._row(run_id)
        plan = with_keys(plan_of(row), row["keyed_arms"], api_keys or {})
        return await self.start(plan, idempotency_key=idempotency_key, rerun_of=run_id)

    async def events(self, run_id: str) -> AsyncGenerator[Progress | Run, None]:
        """Yield the progress now and whenever it changes, and the run when it has ended, whoever measures it.

        Raises:
            BenchmarkNotFound: there is none, or it was deleted while it was watched.
            ServerStopping: the run goes on when the server is back.
        """
        said: Progress | None = None
        while True:
            feed = self._queue.feeds.get(run_id)
            run = await self.get(run_id)
            if run.status in ENDED:
                yield run
                return
            if run.progress != said:
                said = run.progress
                yield said
            self._see_that_it_is_open()
            if feed is None:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            version = 0
            while not feed.has_ended:
                version = await feed.after(version)
                if feed.progress and feed.progress != said:
                    said = feed.progress
                    yield said

    async def wait(self, run_id: str) -> Run:
        """Return the run when it has ended. Raises what ``events`` does."""
        while True:
            async for event in self.events(run_id):
                if isinstance(event, Run):
                    return event

    async def cancel(self, run_id: str) -> Run:
        """Stop a run; what it has measured is kept and analysed. One that has ended stays as it is.

        Raises:
            BenchmarkNotFound: there is no such run.
        """
        row = await self._row(run_id)
        await self._queue.see_through(self._cancel(row))
        return await self.get(run_id)

    async def resume(self, run_id: str, *, api_keys: Mapping[str, str] | None = None) -> Run:
        """Go on with a run that ended early, after its last complete block.

        Raises:
            BenchmarkNotFound: there is no such run.
            BenchmarkNotResumable: it is complete, or was begun on another machine.
            BenchmarkQueueFull: too many wait.
            BenchmarkRunning: it has not ended.
            InvalidRequest: a key is missing, see ``rerun``.
            ModelNotFound: a model is gone.
        """
        self._see_that_it_is_open()
        row = await self._row(run_id)
        if row["status"] not in ENDED and run_id in await self._adopt_once():
            return await self.get(run_id)
        if row["status"] not in ENDED:
            raise BenchmarkRunning("The benchmark has not ended: it waits or is being measured.")
        if row["status"] == "complete":
            raise BenchmarkNotResumable("The benchmark is complete. Use rerun to measure the same once more.")
        if other := self._other_machine(row):
            raise BenchmarkNotResumable(other)
        self._see_that_there_is_room()
        plan = with_keys(plan_of(row), row["keyed_arms"], api_keys or {})
        prepared = await prepare(plan, self._providers)
        await self._queue.see_through(self._go_on(row, prepared))
        return await self.get(run_id)

    async def delete(self, run_id: str) -> None:
        """Delete a run and all that it measured for good.

        Raises:
            BenchmarkNotFound: there is no such run.
            BenchmarkRunning: it is being measured.
        """
        async with self._database.transaction() as db:
            repository = BenchmarkRepository(db)
            if not await repository.remove(run_id):
                found(await repository.get(run_id), run_id)
                raise BenchmarkRunning("The benchmark is being measured. Cancel it first.")
        self._queue.cancel(run_id)

    async def compare(self, run_ids: Sequence[str]) -> list[Comparison]:
        """Compare stored runs with the first of them, judged by what runs that ask the same differ in anyway.

        Raises:
            BenchmarkFailed: the comparison could not be computed.
            BenchmarkNotFound: there is no such run.
            InvalidRequest: there are less than two, or one has no figures.
        """
        async with self._comparing:
            return await compared(self._place, await comparison_job(self._database, run_ids))

    async def adopt_orphans(self) -> int:
        """Take over runs whose server processes are gone, and go on with them or end them; returns how many.

        For processes that live long: one that only looks something up would begin to measure and be gone. Runs of this
        process that it does not know of are among them: what the database stored while its answer was lost. To be
        called after ``instances.forget_dead``. What takes longer is done in the background.
        """
        if self._queue.is_closed:  # what it has forgotten is for the next start
            return 0
        known = self._adopting | self._queue.feeds.keys()
        async with self._database.transaction() as db:
            repository = BenchmarkRepository(db)
            rows = await repository.claim_orphans(self._instance_id, self._host, _PATIENCE)
            rows += await repository.claim_forgotten(self._instance_id, known, _FORGOTTEN_AFTER)
        self._has_adopted = True
        self._adopting |= {row["id"] for row in rows}
        for row in rows:
            task = self._queue.spawn(self._adopt(row))
            task.add_done_callback(partial(self._adopted, row["id"]))
        return len(rows)

    async def close(self) -> None:
        """Stop measuring. Runs go back into the queue, where the next start of the server finds them."""
        await self._queue.close()

    async def _adopt_once(self) -> set[str]:
        """Take over orphans where that was never done here; returns those that are being taken over."""
        if not self._has_adopted:
            await self.adopt_orphans()
        return set(self._adopting)

    async def _store(self, values: dict[str, Any], plan: bytes, prepared: Prepared) -> bool:
        async with self._database.transaction() as db:
            is_new = await BenchmarkRepository(db).create(values, plan)
        if is_new:
            self._queue.add(values["id"], prepared)
        return is_new

    async def _cancel(self, row: dict[str, Any]) -> None:
        run_id = row["id"]
        mine = {"status": "running", "instance_id": self._instance_id, "cancel_requested": True}
        async with self._database.transaction() as db:
            repository = BenchmarkRepository(db)
            if not await repository.has_records(run_id):
                ended = {"status": "cancelled", "ended_at": now()}
                has_report_to_come = False
                await repository.change(run_id, ended, only=["queued"])
            else:  # it went on after a restart, or was about to
                has_report_to_come = await repository.change(run_id, mine, only=["queued"])
            await repository.change(run_id, {"cancel_requested": True}, only=["running"])
        if has_report_to_come:
            self._queue.end_early(run_id, plan_of(row), "cancelled", None, None)
        self._queue.cancel(run_id)

    def _adopted(self, run_id: str, _task: asyncio.Task[None]) -> None:
        self._adopting.discard(run_id)

    async def _adopt(self, row: dict[str, Any]) -> None:
        plan = plan_of(row)
        detail, code = self._why_not_resumed(row), None
        if row["cancel_requested"]:
            self._queue.end_early(row["id"], plan, "cancelled", None, None)
            return
        if detail is None:
            try:
                prepared = await prepare(plan, self._providers)
                await insist(lambda: self._go_on(row, prepared))
            except LabError as error:
                detail, code = f"The server stopped, and the run cannot go on: {error.detail}", error.code
            else:
                return
        self._queue.end_early(row["id"], plan, "interrupted", detail, code)

    def _why_not_resumed(self, row: dict[str, Any]) -> str | None:
        if row["keyed_arms"]:
            return (
                f"The server stopped, and the API keys of {', '.join(row['keyed_arms'])} are never stored. Resume the "
                "run with them, or rerun it."
            )
        if row["status"] == "running" and row["resumed"] >= _MOST_RESUMED:  # else it was given back in order
            return f"The server stopped {row['resumed'] + 1} times during this run. Resume it if that is not its doing."
        return self._other_machine(row)

    def _other_machine(self, row: dict[str, Any]) -> str | None:
        if row["started_at"] is None or row["host"] == self._host:
            return None
        return f"The run was begun on {row['host']}, and this is {self._host}: figures of the two do not mix. Rerun it."

    async def _go_on(self, row: dict[str, Any], prepared: Prepared) -> None:
        values = {
            "status": "queued",
            "resumed": row["resumed"] + (row["started_at"] is not None),
            "cancel_requested": False,
            "ended_at": None,
            "grade": None,
            "error": None,
            "error_code": None,
            **self._waiting(prepared),
        }
        async with self._database.transaction() as db:
            repository = BenchmarkRepository(db)
            if not await repository.change(row["id"], values, only=[row["status"]], instance_id=row["instance_id"]):
                raise BenchmarkRunning("Somebody else has just taken the run up again.")
            await repository.discard_unfinished(row["id"])
        self._queue.add(row["id"], prepared)

    def _waiting(self, prepared: Prepared) -> dict[str, Any]:
        return {
            "instance_id": self._instance_id,
            "host": self._host,
            "target_keys": prepared.target_keys,
            "identity": prepared.identity,
            "progress": first_progress(prepared.plan),
        }

    async def _row(self, run_id: str) -> dict[str, Any]:
        async with self._database.reading() as db:
            return found(await BenchmarkRepository(db).get(run_id), run_id)

    async def _asked_before(self, key: str, asked: str) -> Run | None:
        async with self._database.reading() as db:
            row = await BenchmarkRepository(db).by_idempotency_key(key)
        if row is None:
            return None
        if row["request_hash"] != asked:
            raise IdempotencyKeyReused("This Idempotency-Key came with another benchmark before. Use a new key.")
        return await self.get(row["id"])

    def _see_that_there_is_room(self) -> None:
        if self._queue.is_full:
            raise BenchmarkQueueFull(
                "Too many benchmarks wait already. Ask again when some have ended, or cancel some: GET /benchmarks "
                "lists them.",
                retry_after_seconds=60,
            )

    def _see_that_it_is_open(self) -> None:
        if self._queue.is_closed:
            raise ServerStopping("The server is stopping. Ask again when it is back.", retry_after_seconds=5)
