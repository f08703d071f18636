"""When there is no sense in asking a server any more."""

from __future__ import annotations

from http import HTTPStatus

from ai_lab.benchmarks.records import Record

MOST_FAILURES = 20  # of an arm in a row
_MOST_SILENCE_SECONDS = 300.0  # of nothing but failures, three at least: time-outs would take hours to be 20
_FEWEST_FAILURES = 3


class Patience:
    """Counts the requests of an arm that failed one after the other."""

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._failed = 0
        self._since_ns = 0

    def ended_by(self, record: Record) -> str | None:
        """Take in a record; return why there is no sense in going on, or None."""
        if record.status in {"ok", "short"}:
            self._failed = 0
        if record.status not in {"error", "timeout", "aborted"} or (self._is_open and _is_overload(record)):
            return None
        self._since_ns = self._since_ns if self._failed else record.dispatched_ns or 0
        self._failed += 1
        # By stamps alone: those of a run that goes on after a restart of the machine are not of this process's clock.
        seconds = ((record.end_ns or 0) - self._since_ns) / 1e9
        if self._failed < MOST_FAILURES and (seconds < _MOST_SILENCE_SECONDS or self._failed < _FEWEST_FAILURES):
            return None
        what = (record.error or record.status).rstrip(".")
        return f"{self._failed} requests in a row failed, the last with: {what}. The run ends with what was measured."


def _is_overload(record: Record) -> bool:
    """Whether a failure says that the server has more to do than it can."""
    code = record.http_status or 0
    return (
        record.status == "timeout" or code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR
    )
