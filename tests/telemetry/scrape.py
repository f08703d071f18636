"""Reading what the lab shows to Prometheus, strictly, as Prometheus itself would."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ai_lab.telemetry.operations.service import Operations
from ai_lab.telemetry.operations.slot import Kind
from ai_lab.telemetry.prometheus.exposition import Exposition


class Recorded(Operations):
    """Operations that remember what they were told: kind, name, whether it failed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str, bool]] = []

    def record(
        self, kind: Kind, name: str, seconds: float, *, failed: bool = False, trace_id: str | None = None
    ) -> None:
        assert seconds >= 0
        super().record(kind, name, seconds, failed=failed, trace_id=trace_id)
        self.calls.append((kind, name, failed))


def parse(openmetrics: str) -> dict[str, dict[tuple[str, ...], Sample]]:
    """Return samples by name and label values (by label name); raises ``ValueError`` on any fault of the format."""
    samples: dict[str, dict[tuple[str, ...], Sample]] = {}
    for family in text_string_to_metric_families(openmetrics):  # type: ignore[no-untyped-call]  # it has no types
        for sample in family.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            assert values not in samples.setdefault(sample.name, {}), sample
            samples[sample.name][values] = sample
    return samples


async def samples_of(registry: Any) -> dict[str, dict[tuple[str, ...], Sample]]:
    """Render a registry and read it back."""
    text, _ = await Exposition(registry).render("application/openmetrics-text")
    return parse(text.decode())


async def lint(text: bytes) -> tuple[int, str]:
    """Return exit code and output of ``promtool check metrics``."""
    return await asyncio.to_thread(_lint, text)


def _lint(text: bytes) -> tuple[int, str]:
    command = ["/usr/bin/promtool", "check", "metrics"]
    result = subprocess.run(command, input=text, capture_output=True, check=False)
    return result.returncode, (result.stdout + result.stderr).decode()
