"""``ai-lab bench``: measuring from the terminal, on a server where one runs, else in this process."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ai_lab.benchmarks import Benchmarks, Run
from ai_lab.benchmarks.analysis.verdicts import is_slower_than
from ai_lab.benchmarks.reports import ReportFormat
from ai_lab.benchmarks.schemas import Comparison, Progress
from ai_lab.cli.address import explain, find_address
from ai_lab.cli.bench_plan import key_from, plan_of, share_of
from ai_lab.cli.bench_screen import bar, draw_list, draw_run, figures_of
from ai_lab.client import AsyncLabClient
from ai_lab.client.benchmarks import AsyncBenchmarkClient
from ai_lab.errors import InvalidRequest, LabError, ServerUnreachable
from ai_lab.lab import Lab

DONE, SLOWER, WRONG, CANNOT_TELL, INTERRUPTED = 0, 1, 2, 3, 130
_LOOK_SECONDS = 5.0
Door = Benchmarks | AsyncBenchmarkClient


def measure(given: dict[str, Any]) -> int:
    """Run what the options ask for, show it, and return the exit code."""

    async def work() -> int:
        limit = share_of("--fail-if-slower", given.get("fail_if_slower"))
        fmt = _format(given["format"])
        if _are_runs(given.get("models")):
            return await _compare_stored(given["models"], given["url"], limit, fmt, given["output"])
        plan = plan_of(given)
        async with _door(given["url"]) as door:
            run = await door.start(plan)
            run = await _followed(door, run)
            await _print(door, run, fmt, given["output"])
        return _exit_code(run, limit)

    return _ended(work)


def go_again(what: str, run_id: str, *, url: str | None, key_name: str | None, fmt: str, output: Path | None) -> int:
    """Rerun or resume a run, show it, and return the exit code."""

    async def work() -> int:
        chosen = _format(fmt)
        async with _door(url) as door:
            key = key_from(key_name)
            keys = dict.fromkeys((await door.get(run_id)).plan.arm_names(), key) if key else None
            again = door.rerun if what == "rerun" else door.resume
            run = await _followed(door, await again(run_id, api_keys=keys))
            await _print(door, run, chosen, output)
        return _exit_code(run, None)

    return _ended(work)


def show_list(url: str | None, limit: int) -> int:
    """Print the list of runs."""

    async def work() -> int:
        runs: list[Run] = []
        after: str | None = None
        async with _door(url) as door:
            while len(runs) < limit:
                page = await door.page(after=after, limit=min(100, limit - len(runs)))
                runs += page.data
                if not (after := page.after):
                    break
        if runs:
            _console().print(draw_list(runs))
        else:
            _console().print("There is no run yet. Make one: ai-lab bench run")
        return DONE

    return _ended(work)


def show_report(run_id: str, url: str | None, fmt: str, output: Path | None) -> int:
    """Print the report of a run, or write it to a file."""

    async def work() -> int:
        chosen = _format(fmt)
        async with _door(url) as door:
            await _print(door, await door.get(run_id), chosen, output)
        return DONE

    return _ended(work)


def cancel_run(run_id: str, url: str | None) -> int:
    """Stop a run."""

    async def work() -> int:
        async with _door(url) as door:
            run = await door.cancel(run_id)
        _console().print(f"{run.id}: {run.status}", markup=False)
        return DONE

    return _ended(work)


def delete_run(run_id: str, url: str | None) -> int:
    """Delete a run."""

    async def work() -> int:
        async with _door(url) as door:
            await door.delete(run_id)
        return DONE

    return _ended(work)


def _ended(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        return asyncio.run(work())
    except KeyboardInterrupt:
        _say("Interrupted. What was measured is kept: ai-lab bench list")
        return INTERRUPTED
    except LabError as error:
        _say(f"error: {error.detail}")
        return WRONG


@asynccontextmanager
async def _door(url: str | None) -> AsyncIterator[Door]:
    """Give the server's benchmarks; where none was named and none runs, those of this process."""
    address = find_address(url)
    async with AsyncLabClient(address.url) as client:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await client.health()
        except (ServerUnreachable, TimeoutError) as error:
            if url is not None:
                if isinstance(error, ServerUnreachable):
                    trouble = explain(address, error)
                    raise ServerUnreachable(f"{trouble.what} {trouble.remedy}") from None
                raise ServerUnreachable(f"{address.url} does not answer.") from None
        else:
            yield client.benchmarks
            return
    _say(f"No server at {address.url}: this process does the work.")
    async with Lab.open() as lab:
        yield lab.benchmarks


async def _followed(door: Door, run: Run) -> Run:
    """Show how a run goes on until it has ended; whoever interrupts cancels it."""
    try:
        with bar() as shown:
            task = shown.add_task("queued", total=None, figures="")
            async for change in door.events(run.id):
                if isinstance(change, Progress):
                    what = " · ".join(filter(None, (change.phase, change.arm if len(run.plan.arms) > 1 else None)))
                    shown.update(
                        task,
                        description=what,
                        completed=change.done,
                        total=change.total or None,
                        figures=figures_of(change),
                    )
    except asyncio.CancelledError:
        await door.cancel(run.id)
        raise
    return await door.get(run.id)


async def _print(door: Door, run: Run, fmt: ReportFormat | None, output: Path | None) -> None:
    if fmt is None:
        if output:
            with output.open("w", encoding="utf-8") as file:
                Console(file=file, width=160, highlight=False).print(draw_run(run))
        else:
            _console().print(draw_run(run))
        return
    document = await door.report(run.id, fmt)
    content = document if isinstance(document, bytes) else document.content
    if output:
        await asyncio.to_thread(output.write_bytes, content)
        _say(f"Written to {output}")
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


async def _compare_stored(
    run_ids: Sequence[str], url: str | None, limit: float | None, fmt: ReportFormat | None, output: Path | None
) -> int:
    if fmt not in {None, "json"} or output:
        raise InvalidRequest("Stored runs are compared on the terminal, as text or --format json.")
    async with _door(url) as door:
        compared = await door.compare(run_ids)
    comparisons = compared if isinstance(compared, list) else compared.comparisons
    if fmt == "json":
        sys.stdout.write(json.dumps([one.model_dump(mode="json") for one in comparisons], indent=2) + "\n")
    else:
        for one in comparisons:
            _console().print(f"{one.verdict:>12}  {one.sentence}", markup=False)
    return _judged(comparisons, limit)


def _exit_code(run: Run, limit: float | None) -> int:
    if run.status == "failed":
        _say(f"error: {run.error}")
        return WRONG if run.report is None else SLOWER
    if limit is None:
        return DONE
    if run.grade == "INVALID" or run.report is None:
        _say("--fail-if-slower: the run is INVALID, so that nothing can be told from it.")
        return CANNOT_TELL
    return _judged(run.report.comparisons, limit)


def _judged(comparisons: Sequence[Comparison], limit: float | None) -> int:
    """Return 1 where the evidence says slower by more than the limit, 3 where nothing could be told at all."""
    if limit is None:
        return DONE
    told = [(one, is_slower_than(one, limit)) for one in comparisons]
    for one, is_slower in told:
        if is_slower:
            _say(f"--fail-if-slower: {one.sentence}")
        elif is_slower is None:
            _say(f"--fail-if-slower cannot tell: {one.sentence}")
    if any(is_slower for _, is_slower in told):
        return SLOWER
    return CANNOT_TELL if all(is_slower is None for _, is_slower in told) else DONE


def _are_runs(names: Sequence[str] | None) -> bool:
    """Return whether all names are ids of runs."""
    try:
        return bool(names) and all(str(uuid.UUID(name)) == name.lower() for name in names or ())
    except ValueError:
        return False


def _format(name: str) -> ReportFormat | None:
    if name == "text":
        return None
    for known in get_args(ReportFormat):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args knows no types
    raise InvalidRequest(f"--format: {name!r} is none of text, {', '.join(get_args(ReportFormat))}.")


def _console() -> Console:
    return Console(highlight=False)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False)
