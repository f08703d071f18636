"""Every metric family that Prometheus may see: the truth that rules, dashboards and documents are held against.

Names follow Prometheus' own conventions: base units, ``_total`` for counters, ratios instead of percent, timestamps
instead of ages. Labels hold only values from small closed sets: never a user, a session, a key or a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "ai_lab_"
Kind = Literal["counter", "gauge", "histogram", "info"]

# From 10 ms to 328 s, each twice the one before: a model's answer may take any of these.
_ANSWER = tuple(round(0.01 * 2**step, 2) for step in range(16))
_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 300.0)
_FIRST_BYTE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_GAP = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_LOAD = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_SPEED = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0)
_TOKENS = tuple(float(4**step) for step in range(11))
_STATEMENT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CALL = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; ``name`` is as in the text format: a counter ends in ``_total``, an info in ``_info``."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _rows(prefix: str, kind: Kind, *rows: tuple[str, str, str]) -> tuple[Family, ...]:
    """Return families from (name, labels parted by blanks, help)."""
    return tuple(Family(prefix + name, kind, text, tuple(labels.split())) for name, labels, text in rows)


def _histograms(*rows: tuple[str, str, tuple[float, ...], str]) -> tuple[Family, ...]:
    return tuple(
        Family(PREFIX + name, "histogram", text, tuple(labels.split()), buckets) for name, labels, buckets, text in rows
    )


HOST = (
    *_rows(
        PREFIX,
        "counter",
        (
            "host_cpu_seconds_total",
            "cpu mode",
            "Processor time of the machine by mode; none inside a container with a CPU limit.",
        ),
        ("host_disk_read_bytes_total", "device", "Bytes read from a block device."),
        ("host_disk_written_bytes_total", "device", "Bytes written to a block device."),
        ("host_network_receive_bytes_total", "device", "Bytes received by a network interface."),
        ("host_network_transmit_bytes_total", "device", "Bytes sent by a network interface."),
        ("container_cpu_seconds_total", "", "Processor time of this container, where it has a CPU limit."),
        ("container_cpu_throttled_seconds_total", "", "Time in which the CPU limit held this container back."),
        ("container_oom_kills_total", "", "Processes of this container ended for lack of memory."),
        ("gpu_energy_joules_total", "gpu", "Energy used since the driver was loaded."),
        ("sampler_errors_total", "source error_type", "Readings that failed, by source."),
    ),
    *_rows(
        PREFIX,
        "gauge",
        ("host_cpus", "", "Logical processors of the machine."),
        ("host_load1", "", "Load average over 1 minute; none inside a container with a CPU limit."),
        ("host_load5", "", "Load average over 5 minutes; none inside a container with a CPU limit."),
        ("host_load15", "", "Load average over 15 minutes; none inside a container with a CPU limit."),
        ("host_memory_total_bytes", "", "Main memory of the machine, or the limit of the container."),
        ("host_memory_available_bytes", "", "Memory that programs can still get without swapping."),
        ("host_swap_total_bytes", "", "Swap space."),
        ("host_swap_used_bytes", "", "Swap space in use."),
        ("host_filesystem_size_bytes", "mountpoint", "Size of a filesystem."),
        ("host_filesystem_available_bytes", "mountpoint", "Room in a filesystem for this user."),
        ("host_temperature_celsius", "chip sensor", "Temperature at a sensor of the machine."),
        ("container_cpu_limit_cores", "", "CPU limit of this container."),
        ("container_memory_limit_bytes", "", "Memory this container may use."),
        ("container_memory_working_set_bytes", "", "Memory of this container that cannot be dropped."),
        ("gpus", "vendor", "GPUs found."),
        ("gpu_utilization_ratio", "gpu", "Share of time in which any kernel ran."),
        ("gpu_memory_activity_ratio", "gpu", "Share of time in which GPU memory was read or written."),
        ("gpu_memory_total_bytes", "gpu", "Memory of the GPU."),
        ("gpu_memory_used_bytes", "gpu", "Memory in use, without what the driver keeps."),
        ("gpu_memory_reserved_bytes", "gpu", "Memory that the driver keeps for itself."),
        ("gpu_memory_free_bytes", "gpu", "Free memory of the GPU."),
        ("gpu_mig_memory_total_bytes", "gpu slice", "Memory of a slice of a partitioned GPU."),
        ("gpu_mig_memory_used_bytes", "gpu slice", "Memory in use in a slice of a partitioned GPU."),
        ("gpu_temperature_celsius", "gpu", "Temperature of the GPU's core."),
        ("gpu_power_watts", "gpu", "Power drawn now."),
        ("gpu_power_limit_watts", "gpu", "Power limit in force."),
        ("gpu_clock_hertz", "gpu domain", "Clock rate by domain."),
        ("gpu_fan_speed_ratio", "gpu", "Fan speed as a share of the greatest."),
        ("gpu_throttle_active", "gpu reason", "1 while the GPU is slowed down for this reason."),
        ("gpu_process_memory_used_bytes", "gpu process", "GPU memory by kind of program."),
        ("sampler_last_success_timestamp_seconds", "source", "When this source was last read."),
        ("sampler_duration_seconds", "source", "How long the last reading took."),
    ),
    *_rows(PREFIX, "info", ("gpu_info", "gpu uuid name driver_version cuda_version", "Which GPU this is.")),
)

OPERATIONS = (
    *_rows(
        PREFIX,
        "counter",
        ("http_requests_total", "method route status", "Requests answered."),
        ("http_requests_refused_total", "reason", "Requests of strangers: host, origin, token, scope, rate_limit."),
        ("http_client_disconnects_total", "route", "Requests whose client left before the answer was whole."),
        ("chat_turns_total", "outcome", "Answers in conversations, by how they ended."),
        ("benchmark_runs_total", "status grade", "Benchmarks that ended, by how; grade none: without figures."),
        ("llm_requests_total", "provider model operation", "Requests to a model."),
        ("llm_request_failures_total", "provider model error_type", "Requests to a model that failed."),
        ("llm_requests_cancelled_total", "provider model", "Requests to a model that were called off."),
        ("llm_tokens_total", "provider model token_type", "Tokens of prompts (input) and answers (output)."),
        ("llm_cache_read_tokens_total", "provider model", "Input tokens that the server had in its cache."),
        ("llm_reasoning_tokens_total", "provider model", "Output tokens spent on thinking."),
        ("function_calls_total", "function", "Calls of a monitored function."),
        ("function_failures_total", "function", "Calls of a monitored function that raised an error."),
        ("db_query_failures_total", "operation", "Statements and units of work that failed."),
        ("log_messages_total", "level", "Log entries."),
        ("vault_operations_total", "operation", "What was done with the key vault; use: a key was given to a call."),
        ("vault_operation_failures_total", "operation error_type", "Uses of the key vault that failed."),
        ("metrics_series_dropped_total", "family", "Values not shown apart, for a family had too many label sets."),
    ),
    *_rows(
        PREFIX,
        "gauge",
        ("http_requests_in_progress", "", "Requests being answered now."),
        ("llm_requests_in_progress", "provider model", "Requests to a model under way."),
        ("db_pool_connections", "state", "Database connections of the pools."),
        ("db_size_bytes", "file", "Size of the database and of its write-ahead log."),
        ("vault_keys", "service state", "Stored keys."),
        ("vault_sealed", "", "1 where the vault has no root key that fits, else 0."),
        ("vault_audit_sequence", "", "Number of the newest entry of the audit chain."),
        ("vault_audit_mac", "", "First 48 bits of the MAC of that entry, as a number: an anchor outside the database."),
        ("event_loop_lag_seconds", "", "Longest delay of the event loop within the last 15 seconds."),
        ("health_status", "component status", "1 at the status that a component has."),
        ("build_info", "version python", "1 at the version that runs."),
    ),
    *_histograms(
        ("http_request_duration_seconds", "method route", _REQUEST, "Time from a request to its whole answer."),
        (
            "http_time_to_first_byte_seconds",
            "route",
            _FIRST_BYTE,
            "Time from a request to the first part of its answer.",
        ),
        ("chat_turn_duration_seconds", "", _ANSWER, "Time from a question to the end of its answer in a conversation."),
        ("llm_request_duration_seconds", "provider model", _ANSWER, "Time from a request to the end of its answer."),
        ("llm_time_to_first_token_seconds", "provider model", _ANSWER, "Time to the first text or reasoning."),
        ("llm_inter_token_latency_seconds", "provider model", _GAP, "Time between two pieces of an answer."),
        ("llm_model_load_seconds", "provider model", _LOAD, "Time the model's server took to load the model."),
        ("llm_decode_tokens_per_second", "provider model", _SPEED, "Tokens per second while an answer is written."),
        ("llm_input_tokens_per_request", "provider model", _TOKENS, "Length of prompts."),
        ("llm_output_tokens_per_request", "provider model", _TOKENS, "Length of answers."),
        ("function_duration_seconds", "function", _CALL, "Duration of a monitored function."),
        ("db_query_duration_seconds", "operation", _STATEMENT, "Duration of statements and units of work."),
        ("db_write_wait_seconds", "", _STATEMENT, "Time that a write waited for the one before it."),
    ),
)

#: What the gateway does between a request and the models.
GATEWAY = (
    *_rows(
        PREFIX,
        "counter",
        ("llm_cache_requests_total", "kind", "Look-ups in the answer cache."),
        ("llm_cache_hits_total", "kind", "Look-ups that found an answer; joined: one that was in the making."),
        ("llm_rate_limited_total", "scope", "Requests held back by a limit of the lab for a service."),
        ("llm_retries_total", "provider error_type", "Requests sent again after a failure."),
        ("llm_fallbacks_total", "from_provider to_provider", "Requests passed on to another model."),
        ("llm_circuit_breaker_transitions_total", "provider model state", "Changes of a circuit breaker to a state."),
        ("llm_cost_usd_total", "provider model", "US dollars for requests whose price is known."),
        ("llm_unpriced_requests_total", "provider model", "Requests whose cost is not known."),
        ("llm_budget_refusals_total", "provider", "Requests refused because a budget was used up."),
    ),
    *_rows(
        PREFIX,
        "gauge",
        ("llm_circuit_breaker_state", "provider model state", "1 at the state of a breaker that is not closed."),
        ("llm_requests_waiting", "provider", "Requests that wait for a place in this server's queue for a service."),
    ),
)

#: Standard names, which every dashboard for processes knows, as far as the system has them.
PROCESS = (
    *_rows("process_", "counter", ("cpu_seconds_total", "", "Processor time of the server.")),
    *_rows(
        "process_",
        "gauge",
        ("virtual_memory_bytes", "", "Address space of the server."),
        ("resident_memory_bytes", "", "Main memory of the server."),
        ("start_time_seconds", "", "When the server was started."),
        ("open_fds", "", "Open file descriptors of the server."),
        ("max_fds", "", "File descriptors that the server may open."),
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in (*HOST, *OPERATIONS, *GATEWAY, *PROCESS)}
