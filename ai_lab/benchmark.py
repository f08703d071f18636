"""``Benchmark``: measuring models from a notebook or script, with or without a server.

    result = Benchmark("embedded/SmolLM2-135M-Instruct.Q4_1").run()

Without ``server`` this process looks after the run itself: it opens the lab of its settings, whose database keeps the
run as a server's would. With ``server`` that one measures, on its machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ai_lab.benchmarks.asking import plan_for
from ai_lab.benchmarks.following import Door, in_own_loop, measured
from ai_lab.benchmarks.notebook import BenchmarkResult
from ai_lab.benchmarks.plan import Arm, Plan

__all__ = ["Benchmark", "BenchmarkResult"]


class Benchmark:
    """A plan that can be run; ``ai_lab.benchmarks.asking.plan_for`` explains all arguments.

    Args:
        models: ``provider/model`` names or arms; two or more are compared with the first. None: the default model.
        server: address of an AI Lab server that measures; None: this process does.
        plan: a plan in full instead of ``models`` and ``fields``.
        fields: iterations, concurrency, rate, prompt, prompt_tokens, output_tokens, url, options, engine, …

    Raises:
        InvalidRequest: it cannot be measured like that; the text says why.
    """

    def __init__(
        self,
        *models: str | Arm | Mapping[str, Any],
        server: str | None = None,
        plan: Plan | None = None,
        **fields: Any,
    ) -> None:
        self.plan = plan or plan_for(*models, **fields)
        self._server = server

    def run(self, *, progress: bool = True) -> BenchmarkResult:
        """Measure, and return the result; interrupting (Ctrl-C, the stop button) cancels the run.

        Works inside a notebook, where an event loop is running already.

        Args:
            progress: show a progress bar.
        """
        return in_own_loop(lambda: self.arun(progress=progress))

    async def arun(self, *, progress: bool = True) -> BenchmarkResult:
        """``run`` for programs with an event loop; cancelling it cancels the run."""
        async with self._door() as door:
            return await measured(door, self.plan, progress=progress)

    @asynccontextmanager
    async def _door(self) -> AsyncIterator[Door]:
        if self._server is not None:
            from ai_lab.client import AsyncLabClient  # noqa: PLC0415 - only where a server is asked

            async with AsyncLabClient(self._server) as client:
                yield client.benchmarks
        else:
            from ai_lab.lab import Lab  # noqa: PLC0415 - a database and more, only where this process measures

            async with Lab.open() as lab:
                yield lab.benchmarks
