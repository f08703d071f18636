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
from ai_lab.benchmarks.following import Door, Place, in_own_loop, measured, result_of
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
        self._place = _place(server)

    def run(self, *, progress: bool = True) -> BenchmarkResult:
        """Measure, and return the result.

        Interrupting it (Ctrl-C, the stop button) cancels the run; what was measured until then is kept, see ``stored``.
        Works inside a notebook, where an event loop is running already.

        Args:
            progress: show a progress bar.
        """
        return in_own_loop(lambda: self.arun(progress=progress))

    async def arun(self, *, progress: bool = True) -> BenchmarkResult:
        """``run`` for programs with an event loop; cancelling it cancels the run."""
        async with self._place.opened() as door:
            return await measured(door, self.plan, self._place, progress=progress)

    @staticmethod
    def stored(run_id: str, *, server: str | None = None) -> BenchmarkResult:
        """Return the result of a run of this lab, or of a server's: an earlier one, or one that was interrupted.

        Raises:
            BenchmarkNotFound: there is no such run.
        """
        place = _place(server)

        async def read() -> BenchmarkResult:
            async with place.opened() as door:
                return await result_of(door, run_id, place)

        return in_own_loop(read)


def _place(server: str | None) -> Place:
    if server is None:
        return Place(_own_door, None)
    from ai_lab.client.async_lab_client import place_of  # noqa: PLC0415 - only where a server is asked

    return place_of(server)


@asynccontextmanager
async def _own_door() -> AsyncIterator[Door]:
    """Give the benchmarks of this process, with the lab of its settings."""
    from ai_lab.lab import Lab  # noqa: PLC0415 - a database and more, only where this process measures

    async with Lab.open() as lab:
        yield lab.benchmarks
