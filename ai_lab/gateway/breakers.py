"""Circuit breakers: a model of a service that fails again and again is left alone, then tried by one request."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from ai_lab.clock import new_id
from ai_lab.clock import now as wall_now
from ai_lab.database import Database
from ai_lab.errors import LabError
from ai_lab.gateway.admission import Admission
from ai_lab.gateway.breaker_record import LONGEST_ASKED_SECONDS, Key, Record, judged, refusal
from ai_lab.gateway.breaker_repository import MOST_RECORDS, BreakerRepository
from ai_lab.gateway.breaker_store import BreakerStore, Change
from ai_lab.gateway.schemas import BreakerState, State
from ai_lab.logging import redact_text

#: A probe whose server died is replaced after this time; one that lives says so three times as often.
_LEASE_SECONDS = 15.0

logger = logging.getLogger(__name__)


def _unobserved(_provider: str, _model: str, _state: str) -> None:
    """See nothing."""


class Breakers:
    """What this server knows of models that failed; nothing is known of most, and then nothing is read or written.

    A closed breaker does not slow anybody down, so a model that dies under load is asked by all that were let through
    before the last failure that is borne: ``failures`` - 1 + the places of its service (``ServiceQueue``) at most.

    On Postgres the rows are shared: failures of all servers count together, what one of them finds is known to the
    others within half a second, and of all their requests one is the probe. Where the database does not answer, each
    server goes on by itself.

    Args:
        database: keeps the state, also over restarts.
        failures: how many in a row are borne, less one.
        open_seconds: how long a model is left alone at first; twice as long after each probe that fails, up to ten
            minutes. What a service itself asks for (``Retry-After``) is kept, up to an hour.
        observe: is told of every change of state that happens here: provider, model, state.
    """

    def __init__(
        self,
        database: Database,
        *,
        failures: int,
        open_seconds: float,
        observe: Callable[[str, str, str], None] = _unobserved,
    ) -> None:
        self._store = BreakerStore(database)
        self._limit = failures
        self._open_seconds = open_seconds
        self._observe = observe
        self._records: dict[Key, Record] = {}
        self._probes: dict[str, asyncio.Task[None] | None] = {}
        self._looking: asyncio.Task[None] | None = None

    async def admit(self, provider: str, model: str) -> Admission:
        """Let a request through, or refuse it; how it ends must be told to what is returned.

        Raises:
            BreakerOpen: the model is left alone; with the seconds until it is tried again.
            ProviderQuotaExceeded: the same, where its account is out of quota.
        """
        if self._store.is_due():
            if self._store.is_stale():
                await self._look()
            elif self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
        key = (provider, redact_text(model))  # a secret in the place of a model's name is kept nowhere
        record = self._records.get(key)
        if record is None or record.state == "closed":
            return Admission(self, key, None)
        return Admission(self, record.key, await self._claim(record))

    async def states(self) -> list[BreakerState]:
        """Return the models that failed lately, by name."""
        await self._look()
        return self.known()

    def known(self) -> list[BreakerState]:
        """Return the same as far as this server knows it; no I/O."""
        now, records = self._store.now(), dict(self._records)  # a scrape asks from a thread of its own
        return [records[key].shown(now) for key in sorted(records)]

    async def reset(self, provider: str, model: str) -> bool:
        """Forget that a model failed, and return whether it had."""
        await self._look()
        record = self._records.pop((provider, model), None)
        if record is None:
            return False
        self._store.submit(record.key, lambda rows: rows.delete(record.key))
        await self._store.flush()
        if record.state != "closed":
            self._changed(record, "closed")
        return True

    async def close(self) -> None:
        """Write what is left."""
        tasks = [task for task in (*self._probes.values(), self._looking) if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._store.close()

    def succeeded(self, key: Key) -> None:
        """A request got its whole answer."""
        record = self._records.get(key)
        if record and record.state == "closed":  # else a late answer to what was asked before it was left alone
            del self._records[key]
            self._store.submit(key, lambda rows: rows.recover(key) if self._store.is_shared else rows.delete(key))

    def failed(self, key: Key, error: LabError) -> None:
        """A request failed."""
        verdict = judged(error)
        if verdict not in {"fault", "hold"}:
            return
        record = self._records.get(key) or Record(*key)
        if record.state == "half_open" or (record.state == "open" and verdict == "fault"):
            return  # was asked before it was left alone
        now = self._store.now()
        wait_seconds = record.next_wait_seconds(error, self._open_seconds)
        if record.state == "open":  # many that were asked at once may hear the same: that is one failure
            wait_seconds = min(error.retry_after_seconds or 0.0, LONGEST_ASKED_SECONDS)
            if now + wait_seconds <= (record.retry_at or 0):
                return
        self._keep(record)
        record.failures += 1
        record.blame(error)
        if verdict == "hold" or record.failures >= self._limit:
            was_open = record.state == "open"
            record.open(now, wait_seconds)
            if not was_open:
                self._changed(record, "open", wait_seconds)
        seen = copy.copy(record)
        if verdict == "hold":
            self._save(seen, lambda rows: rows.hold(seen))
        else:
            self._save(seen, lambda rows: rows.count_failure(seen, self._limit, now, wait_seconds))

    def answering(self, key: Key, probe: str) -> None:
        """The probe gets an answer: others are let through, and one more failure before a whole answer opens again."""
        record = self._probed(key, probe)
        if record is None:
            return
        record.state, record.failures, record.probe, record.probe_until = "closed", self._limit - 1, None, None
        record.changed_at = wall_now()
        self._changed(record, "closed")
        failures = record.failures
        self._save(record, lambda rows: rows.end_probe(key, probe, state="closed", failures=failures))

    def probe_failed(self, key: Key, probe: str, error: LabError) -> None:
        """The probe failed: the model is left alone again, or the place goes to another one where nothing was asked."""
        verdict = judged(error)
        if verdict == "unknown":
            self.given_back(key, probe)
            return
        if verdict == "alive":
            self.answering(key, probe)
            self.succeeded(key)
            return
        record = self._probed(key, probe)
        if record is None:
            return
        wait_seconds = record.next_wait_seconds(error, self._open_seconds)
        if verdict == "busy":
            wait_seconds = error.retry_after_seconds or self._open_seconds
        record.failures += 1
        record.blame(error)
        record.open(self._store.now(), wait_seconds)
        self._changed(record, "open", wait_seconds)
        self._end(record, probe)

    def given_back(self, key: Key, probe: str) -> None:
        """Nobody waits for the probe any more: the next request takes its place."""
        record = self._probed(key, probe)
        if record is None:
            return
        record.state, record.probe, record.probe_until = "open", None, None
        record.changed_at = wall_now()
        self._changed(record, "open", 0.0)
        self._end(record, probe)

    async def _claim(self, record: Record) -> str | None:
        """Return the id of the one request that tries the model now, or None where it was found well meanwhile.

        Raises:
            BreakerOpen: for all others.
            ProviderQuotaExceeded: the same, where the account is out of quota.
        """
        now = self._store.now()
        vanished = record.probe_until is not None and record.probe_until <= now and record.probe not in self._probes
        if not (vanished if record.state == "half_open" else (record.retry_at or 0) <= now):
            raise refusal(record, now)
        key, probe, until = record.key, new_id(), now + _LEASE_SECONDS
        record.state, record.probe, record.probe_until = "half_open", probe, until
        self._probes[probe] = None
        if self._store.is_shared:
            try:
                await self._store.settled(key)  # or the row might still say that another one tries it
                is_ours = await self._store.attempt(lambda rows: rows.claim(key, probe, now, until))
            except BaseException:
                self.given_back(key, probe)
                raise
            if is_ours is False:
                self._probes.pop(probe)
                self._store.forget_read()
                await self._look()
                current = self._records.get(key)
                if current is None or current.state == "closed":
                    return None
                raise refusal(current, now)
            self._probes[probe] = asyncio.create_task(self._renew(key, probe))
        self._changed(record, "half_open")
        return probe

    async def _renew(self, key: Key, probe: str) -> None:
        while True:
            await asyncio.sleep(_LEASE_SECONDS / 3)
            self._submit_renewal(key, probe, self._store.now() + _LEASE_SECONDS)

    def _submit_renewal(self, key: Key, probe: str, until: float) -> None:
        self._store.submit(key, lambda rows: rows.renew(key, probe, until))

    async def _look(self) -> None:
        """Take over what others wrote; what is being written from here is newer."""
        found = await self._store.read()
        if found is None:
            return
        theirs = {record.key: record for record in found}
        kept = {key: record for key, record in self._records.items() if self._is_ours(record)}
        self._records = {key: record for key, record in theirs.items() if not self._store.is_pending(key)} | kept

    def _is_ours(self, record: Record) -> bool:
        return self._store.is_pending(record.key) or record.probe in self._probes

    def _probed(self, key: Key, probe: str) -> Record | None:
        """End the probe's turn and return its record, None where that is another's by now."""
        if renewal := self._probes.pop(probe, None):
            renewal.cancel()
        record = self._records.get(key)
        return record if record and record.probe == probe else None

    def _keep(self, record: Record) -> None:
        if record.key not in self._records and len(self._records) >= MOST_RECORDS:
            self._records.pop(min(self._records, key=lambda key: self._records[key].changed_at))
        self._records[record.key] = record

    def _end(self, record: Record, probe: str) -> None:
        values = asdict(record)
        for name in ("provider", "model", "probe", "probe_until", "changed_at"):
            del values[name]
        self._save(record, lambda rows: rows.end_probe(record.key, probe, **values))

    def _save(self, record: Record, shared: Change) -> None:
        """Write a change: on Postgres as a change, for others make changes too, else the record as it is."""
        if self._store.is_shared:
            self._store.submit(record.key, shared)
            return
        seen = copy.copy(record)

        def put(rows: BreakerRepository) -> Awaitable[None]:
            return rows.put(seen)

        self._store.submit(record.key, put)

    def _changed(self, record: Record, state: State, wait_seconds: float = 0.0) -> None:
        self._observe(record.provider, record.model, state)
        name = f"{record.provider}/{record.model}"
        if state == "open" and wait_seconds:
            logger.warning("%s is left alone for %.0f s: %s", name, wait_seconds, record.error_code)
        elif state == "closed":
            logger.info("%s is asked again", name)
