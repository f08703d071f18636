"""``ai-lab bench``: what its commands do; the exit codes are those of ``bench_command.py``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ai_lab.benchmarks import Run
from ai_lab.benchmarks.analysis.verdicts import is_slower_than
from ai_lab.benchmarks.reports import ReportFormat
from ai_lab.benchmarks.reports.formats import KINDS
from ai_lab.benchmarks.schemas import Comparison
from ai_lab.cli.bench_door import Door, opened_door, say
from ai_lab.cli.bench_follow import followed
from ai_lab.cli.bench_plan import key_from, plan_of, share_of
from ai_lab.cli.bench_screen import draw_list, draw_run
from ai_lab.errors import BenchmarkNotFound, InvalidRequest, LabError, StartupError

DONE, SLOWER, WRONG, INVALID, INTERRUPTED = 0, 1, 2, 3, 130
_FORMAT_OF = {suffix: fmt for fmt, (_, suffix) in KINDS.items() if suffix != ".txt"} | {".htm": "html"}
_FILE_WIDTH = 160
#: What the comparison of stored runs can be given; everything else is about measuring.
_ABOUT_STORED = {"models", "url", "fail_if_slower", "format", "output"}


def measure(given: dict[str, Any], *, least_models: int = 0) -> int:
    """Run what the options ask for, show it, and return the exit code."""

    async def work() -> int:
        limit = share_of("--fail-if-slower", given.get("fail_if_slower"))
        shown = _Output(given["format"], given["output"])
        models = given.get("models") or ()
        if 0 < len(models) < least_models:
            raise InvalidRequest("A comparison needs two models or more, the baseline first. For one: ai-lab bench run")
        are_runs = [_is_run(name) for name in models]
        if least_models and any(are_runs):
            if not all(are_runs):
                stranger = models[are_runs.index(False)]
                raise InvalidRequest(f"{stranger!r} is no id of a run, as others are. Compare models, or stored runs.")
            return await _compare_stored(given, limit, shown)
        plan = plan_of(given)
        async with opened_door(given["url"]) as door:
            return await _to_its_end(door, await door.start(plan), shown, limit)

    return _ended(work)


def go_again(
    what: str, run_id: str, *, url: str | None, key_name: str | None, fmt: str | None, output: Path | None
) -> int:
    """Rerun or resume a run, show it, and return the exit code."""

    async def work() -> int:
        shown = _Output(fmt, output)
        key = key_from("--api-key-from", key_name)
        async with opened_door(url) as door:
            plan = (await door.get(run_id)).plan
            named = zip(plan.arm_names(), plan.arms, strict=True)
            keys = {name: key for name, arm in named if arm.url} if key else None
            again = door.rerun if what == "rerun" else door.resume
            return await _to_its_end(door, await again(run_id, api_keys=keys), shown, None)

    return _ended(work)


def show_list(url: str | None, limit: int) -> int:
    """Print the list of runs."""

    async def work() -> int:
        runs: list[Run] = []
        after: str | None = None
        async with opened_door(url) as door:
            while len(runs) < limit:
                page = await door.page(after=after, limit=min(100, limit - len(runs)))
                runs += page.data
                if not (after := page.after):
                    break
        if runs:
            console = Console(highlight=False)
            console.print(draw_list(runs, console.width if console.is_terminal else None), soft_wrap=True)
        else:
            say("There is no run yet. Make one: ai-lab bench run")
        return DONE

    return _ended(work)


def show_report(run_id: str | None, url: str | None, fmt: str | None, output: Path | None) -> int:
    """Print the report of a run, or of the newest one, or write it to a file."""

    async def work() -> int:
        shown = _Output(fmt, output)
        async with opened_door(url) as door:
            await shown.put(door, await door.get(run_id or await _newest(door)))
        return DONE

    return _ended(work)


def cancel_run(run_id: str, url: str | None) -> int:
    """Stop a run and wait until it has ended."""

    async def work() -> int:
        async with opened_door(url) as door:
            await door.cancel(run_id)
            run = await door.wait(run_id)
        print(f"{run.id} {run.status}")  # noqa: T201 - a command speaks to its terminal
        return DONE

    return _ended(work)


def delete_run(run_id: str, url: str | None) -> int:
    """Delete a run."""

    async def work() -> int:
        async with opened_door(url) as door:
            await door.delete(run_id)
        return DONE

    return _ended(work)


def _ended(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        return asyncio.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted. What was started and measured until now is in the list: ai-lab bench list")
        return INTERRUPTED
    except BenchmarkNotFound as error:
        say(f"error: {error.detail.partition('. ')[0]}. ai-lab bench list shows them.")
        return WRONG
    except StartupError:
        raise  # said by the command itself
    except LabError as error:
        say(f"error: {error.detail}")
        return WRONG


async def _to_its_end(door: Door, run: Run, shown: _Output, limit: float | None) -> int:
    run, is_interrupted = await followed(door, run)
    if run.status == "failed" and run.report is None:
        say(f"error: {run.error}")
        return WRONG
    await shown.put(door, run)
    if is_interrupted:
        return INTERRUPTED
    if run.status != "complete":  # somebody else cancelled it, or it failed on the way
        say(
            f"error: {run.error}"
            if run.error
            else f"The run is {run.status}. Go on with it: ai-lab bench resume {run.id}"
        )
        return SLOWER
    if limit is None:
        return DONE
    if run.grade == "INVALID" or run.report is None:
        say("--fail-if-slower: the run is INVALID, so that nothing can be told from it.")
        return INVALID
    return _judged(run.report.comparisons, limit)


class _Output:
    """Where a report goes and as what. Made before anything is measured, so that a wrong option costs no time.

    Raises:
        InvalidRequest: there is no such format, or the file cannot be written.
    """

    def __init__(self, name: str | None, file: Path | None) -> None:
        name = name or (_FORMAT_OF.get(file.suffix.lower()) if file else None) or "text"
        known = ("text", *get_args(ReportFormat))
        if name not in known:
            raise InvalidRequest(f"--format: {name!r} is none of {', '.join(known)}.")
        self.fmt: Any = None if name == "text" else name
        self.file = file
        if file and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
            why = "it is a folder" if file.is_dir() else "no such folder" if not file.parent.is_dir() else "not allowed"
            raise InvalidRequest(f"--output: {file} cannot be written ({why}).")

    async def put(self, door: Door, run: Run) -> None:
        if self.fmt:
            document = await door.report(run.id, self.fmt)
            content = document if isinstance(document, bytes) else document.content
        elif self.file:
            console = Console(width=_FILE_WIDTH, highlight=False, color_system=None)
            with console.capture() as text:
                console.print(draw_run(run, _FILE_WIDTH))
            content = text.get().encode()
        else:
            console = Console(highlight=False)
            console.print(draw_run(run, console.width))
            return
        if self.file is None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
            return
        try:
            await asyncio.to_thread(self.file.write_bytes, content)
        except OSError as error:
            again = f"The run is kept: ai-lab bench report {run.id}"
            raise InvalidRequest(f"--output: {self.file} cannot be written ({error.strerror}). {again}") from None
        say(f"Written to {self.file}")


async def _compare_stored(given: dict[str, Any], limit: float | None, shown: _Output) -> int:
    if strange := [name for name, value in given.items() if value is not None and name not in _ABOUT_STORED]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
        raise InvalidRequest(f"Stored runs are compared as they were measured. Leave out {options}.")
    if shown.fmt not in {None, "json"} or shown.file:
        raise InvalidRequest("Stored runs are compared on the terminal, as text or --format json.")
    async with opened_door(given["url"]) as door:
        compared = await door.compare(given["models"])
    comparisons = compared if isinstance(compared, list) else compared.comparisons
    if shown.fmt:
        sys.stdout.write(json.dumps([one.model_dump(mode="json") for one in comparisons], indent=2) + "\n")
    else:
        for one in comparisons:
            Console(highlight=False).print(f"{one.verdict:>12}  {one.sentence}", markup=False)
    return DONE if limit is None else _judged(comparisons, limit)


def _judged(comparisons: Sequence[Comparison], limit: float) -> int:
    """Return 1 where the evidence says slower by more than the limit; what cannot be told is said, and breaks nothing.

    A limit that breaks a build by chance is soon switched off.
    """
    told = [(one, is_slower_than(one, limit)) for one in comparisons]
    for one, is_slower in told:
        if is_slower:
            say(f"--fail-if-slower: {one.sentence}")
    unsure = [one for one, is_slower in told if is_slower is None]
    if unsure or not told:
        say(f"WARNING: --fail-if-slower cannot tell for {len(unsure)} of {len(told)} figures:")
        for one in unsure:
            say(f"  {one.sentence}")
    return SLOWER if any(is_slower for _, is_slower in told) else DONE


async def _newest(door: Door) -> str:
    runs = (await door.page(limit=1)).data
    if not runs:
        raise InvalidRequest("There is no run yet. Make one: ai-lab bench run")
    return runs[0].id


def _is_run(name: str) -> bool:
    """Return whether a name is the id of a run."""
    try:
        return str(uuid.UUID(name)) == name.lower()
    except ValueError:
        return False
