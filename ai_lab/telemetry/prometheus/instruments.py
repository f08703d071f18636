"""The one place that the HTTP layer, the database, the models and functions report to.

Every report feeds Prometheus and ``Operations``, the lab's own percentiles.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ai_lab import __version__
from ai_lab.logging import SlowOperations
from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.prometheus.exemplars import current_trace_id
from ai_lab.telemetry.prometheus.families import PREFIX
from ai_lab.telemetry.prometheus.gateway import GatewayInstruments
from ai_lab.telemetry.prometheus.inference import Inference
from ai_lab.telemetry.prometheus.own_process import OwnProcess
from ai_lab.telemetry.prometheus.registry import OTHER, Reading, Registry

UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LEVELS = ("debug", "info", "warning", "error", "critical")
_OUTCOMES = ("complete", "incomplete", "interrupted", "failed")
_BENCHMARKS = (
    *(("complete", grade) for grade in ("VALID", "SUSPECT", "INVALID")),
    *((status, "none") for status in ("cancelled", "interrupted", "failed")),
)
_REFUSALS = ("host", "origin", "token", "scope", "rate_limit")
_STATUSES = ("healthy", "degraded", "unhealthy")
_OPERATIONS = ("select", "insert", "update", "delete", "other", "transaction", "read")
_SERVER_ERROR = 500


class VaultReading(NamedTuple):
    """How the vault is at this moment.

    Args:
        keys: how many there are by service and state.
        audit_head: number and MAC of the newest entry; None while the vault is sealed.
    """

    keys: Mapping[tuple[str, str], int]
    is_sealed: bool
    audit_head: tuple[int, str] | None


class Instruments:
    """Counts and times what a lab does. Its methods may be called from any thread and cost a few microseconds.

    Args:
        operations: is told of every operation as well.
        slow: is told of statements, first tokens and functions, to log those that take long.
    """

    def __init__(self, operations: Operations, slow: SlowOperations | None = None) -> None:
        self._operations = operations
        self._slow = slow or SlowOperations(0)
        self.registry = registry = Registry()
        #: Watches calls of models; given to ``Providers``.
        self.inference = Inference(registry, operations, self._slow)
        #: Counts what the gateway does; given to its policies.
        self.gateway = GatewayInstruments(registry)
        self._requests = registry.number("http_requests_total")
        self._request_seconds = registry.histogram("http_request_duration_seconds")
        self._first_byte_seconds = registry.histogram("http_time_to_first_byte_seconds")
        self._refused = registry.number("http_requests_refused_total")
        self._left = registry.number("http_client_disconnects_total")
        self._in_progress = registry.number("http_requests_in_progress")()
        self._turns = registry.number("chat_turns_total")
        self._turn_seconds = registry.histogram("chat_turn_duration_seconds")()
        self._benchmarks = registry.number("benchmark_runs_total")
        self._calls = registry.number("function_calls_total")
        self._call_failures = registry.number("function_failures_total")
        self._call_seconds = registry.histogram("function_duration_seconds")
        self._statement_seconds = registry.histogram("db_query_duration_seconds")
        self._statement_failures = registry.number("db_query_failures_total")
        self._write_wait_seconds = registry.histogram("db_write_wait_seconds")()
        self._log_messages = registry.number("log_messages_total")
        self._vault_operations = registry.number("vault_operations_total")
        self._vault_failures = registry.number("vault_operation_failures_total")
        self._read_vault: Callable[[], VaultReading] | None = None
        self._read_connections: Callable[[], int] | None = None
        self._size_bytes: Mapping[str, int] = {}
        self._lag_seconds: float | None = None
        self._statuses: Mapping[str, str] = {}
        registry.register(self._present)
        registry.register(OwnProcess())
        for outcome in _OUTCOMES:
            self._turns(outcome)
        for status, grade in _BENCHMARKS:
            self._benchmarks(status, grade)
        for reason in _REFUSALS:
            self._refused(reason)
        for level in _LEVELS:  # series that begin at 0 let rate() see the first event
            self._log_messages(level)
        for operation in _OPERATIONS:
            self._statement_seconds(operation)
            self._statement_failures(operation)

    def request_began(self) -> None:
        """Count a request as under way, until ``request_ended``."""
        self._in_progress.inc()

    def request_ended(
        self, method: str, route: str, status: int, seconds: float, first_byte_seconds: float | None, *, has_left: bool
    ) -> None:
        """Count and time a request.

        Args:
            method: any; one that is not standard is shown as ``other``.
            route: the template, never the path.
            status: that the client got, or would have got.
            seconds: to the end of the answer.
            first_byte_seconds: None where nothing was answered.
            has_left: whether the client went before the answer was whole.
        """
        method = method if method in _METHODS else OTHER
        self._in_progress.inc(-1)
        self._requests(method, route, str(status)).inc()
        trace_id = current_trace_id()
        self._request_seconds(method, route).observe(seconds, trace_id)
        if first_byte_seconds is not None:
            self._first_byte_seconds(route).observe(first_byte_seconds, trace_id)
        if has_left:
            self._left(route).inc()
        failed = status >= _SERVER_ERROR
        self._operations.record("http", f"{method} {route}", seconds, failed=failed, trace_id=trace_id)

    def request_refused(self, reason: str) -> None:
        """Count a request that was turned away at the door."""
        self._refused(reason if reason in _REFUSALS else OTHER).inc()

    def vault_operation(self, operation: str, error_code: str | None) -> None:
        """Count what was done with the vault; given to ``Vault``."""
        self._vault_operations(operation).inc()
        if error_code:
            self._vault_failures(operation, error_code).inc()

    def vault(self, read: Callable[[], VaultReading]) -> None:
        """Show what ``read`` returns at each scrape."""
        self._read_vault = read

    def chat_turn(self, outcome: str, seconds: float) -> None:
        """Count and time an answer in a conversation; ``outcome`` is the status that it is kept with."""
        self._turns(outcome).inc()
        self._turn_seconds.observe(seconds, current_trace_id())

    def benchmark_run(self, status: str, grade: str | None) -> None:
        """Count a benchmark that has ended; given to ``Benchmarks``."""
        self._benchmarks(status, grade or "none").inc()

    def database(self, operation: str, seconds: float, failed: bool) -> None:
        """Time a class of statement, a unit of work, or the wait for one (``write_wait``); given to ``Database``."""
        if operation == "write_wait":
            self._write_wait_seconds.observe(seconds)
        else:
            self._statement_seconds(operation).observe(seconds)
        if failed:
            self._statement_failures(operation).inc()
        self._operations.record("database", operation, seconds, failed=failed, trace_id=current_trace_id())
        self._slow("database", operation, seconds)

    def function(self, name: str, seconds: float, *, failed: bool = False) -> None:
        """Count and time one call of a monitored function."""
        self._calls(name).inc()
        self._call_seconds(name).observe(seconds)
        if failed:
            self._call_failures(name).inc()
        self._operations.record("function", name, seconds, failed=failed)
        self._slow("function", name, seconds)

    def log_message(self, level: str) -> None:
        """Count a log entry by the name of its level."""
        level = level.lower()
        self._log_messages(level if level in _LEVELS else OTHER).inc()

    def event_loop_lag(self, seconds: float) -> None:
        """Show how late the event loop is."""
        self._lag_seconds = seconds

    def database_connections(self, read: Callable[[], int]) -> None:
        """Show what ``read`` returns at each scrape: connections of the pools that are in use."""
        self._read_connections = read

    def database_size(self, size_bytes: Mapping[str, int]) -> None:
        """Show the sizes of the database's files: ``db`` and ``wal``."""
        self._size_bytes = dict(size_bytes)

    def health(self, statuses: Mapping[str, str]) -> None:
        """Show the status of every component; components not named any more disappear."""
        self._statuses = dict(statuses)

    def _present(self) -> Iterator[Reading]:
        """Yield what only has a present value."""
        yield PREFIX + "build_info", (__version__, platform.python_version()), 1
        yield PREFIX + "event_loop_lag_seconds", (), self._lag_seconds
        if self._read_connections:
            yield PREFIX + "db_pool_connections", ("in_use",), self._read_connections()
        if self._read_vault:
            vault = self._read_vault()
            for (service, state), count in vault.keys.items():
                yield PREFIX + "vault_keys", (service, state), count
            yield PREFIX + "vault_sealed", (), vault.is_sealed
            if vault.audit_head:
                yield PREFIX + "vault_audit_sequence", (), vault.audit_head[0]
                yield PREFIX + "vault_audit_mac", (), int(vault.audit_head[1][:12], 16)
        for file, size in self._size_bytes.items():
            yield PREFIX + "db_size_bytes", (file,), size
        for component, status in self._statuses.items():
            for possible in _STATUSES:
                yield PREFIX + "health_status", (component, possible), possible == status
