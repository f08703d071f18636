"""Go's benchmark text, which benchstat and the tools around Ollama's own benchmark read: a line for each request.

The steps and units are Ollama's: prefill and generate in ns/token and token/sec, ttft, load and total in ns/op. As
benchstat compares medians of lines, every line is one request and never a mean. ``generate`` is the time from the
first to the last token over the tokens after the first chunk. ``prefill`` is left out where the server does not say how
much of a prompt came from its cache and the prompt may have been sent before: cached tokens would count as read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.reports.figures import shown
from ai_lab.benchmarks.reports.requests import WHOLE, between_ms, level_values, tpot_ms
from ai_lab.benchmarks.schemas import Run

_NS_PER_MS = 1e6


def benchstat_text(run: Run, records: Iterable[Record]) -> str:
    """Return one block of configuration lines and then the lines of every measured request with a whole answer."""
    lines = [f"{key}: {value}" for key, value in _configuration(run)]
    places = _places(run)
    are_new = run.plan.prompts.mode == "unique" and not run.plan.prompts.keep_exact
    left_out = 0
    for record in records:
        if record.phase != "measured":
            continue
        if record.status not in WHOLE:
            left_out += 1
            continue
        place = places.get((record.arm, record.level), f"name={record.arm}/level={record.level}")
        lines += [f"BenchmarkModel/{place}/{rest}" for rest in _steps(record, is_new=are_new)]
    lines.append(f"# {left_out} requests without a whole answer are left out")
    return "\n".join(lines) + "\n"


def _configuration(run: Run) -> Iterator[tuple[str, str]]:
    yield "run", shown(run.id)
    yield "grade", run.report.grade if run.report else f"none ({run.status})"
    yield "title", shown(run.title)
    host = run.report.provenance.get("host") if run.report else None
    for key, value in host.items() if isinstance(host, dict) else ():
        # A key begins with a small letter and has neither blanks nor capitals (golang.org/design/14313).
        if re.fullmatch(r"[a-z][a-z0-9_-]*", str(key)) and isinstance(value, str | int | float):
            yield str(key), shown(value)


def _places(run: Run) -> dict[tuple[int, int], str]:
    """Return the part of the name that tells arm and level; arms stay apart even if only odd characters did that."""
    names: list[str] = []
    for index, name in enumerate(run.plan.arm_names()):
        plain = re.sub(r"[^A-Za-z0-9._:@+=,()-]", "_", name)[:120] or "_"
        names.append(plain if plain not in names else f"{plain}~{index + 1}")
    kind = "concurrency" if run.plan.load.mode == "closed" else "rate"
    levels = level_values(run)
    return {
        (arm, level): f"name={name}" + (f"/{kind}={value:g}" if len(levels) > 1 else "")
        for arm, name in enumerate(names)
        for level, value in levels.items()
    }


def _steps(record: Record, *, is_new: bool) -> Iterator[str]:
    prompt_ms = record.server_ms.get("prompt_ms")
    tokens = (record.prompt_tokens or 0) - (record.cached_tokens or 0)
    if prompt_ms and tokens > 0 and (is_new or record.cached_tokens is not None):
        yield _rate("prefill", prompt_ms / tokens)
    if tpot := tpot_ms(record):
        yield _rate("generate", tpot)
    ttft = between_ms(record.sent_ns, record.first_token_ns)
    for step, milliseconds in (
        ("ttft", ttft),
        ("load", record.server_ms.get("load_ms")),
        ("total", between_ms(record.sent_ns, record.last_token_ns)),
    ):
        if milliseconds is not None:
            yield f"step={step} 1 {milliseconds * _NS_PER_MS:.0f} ns/op"


def _rate(step: str, ms_per_token: float) -> str:
    return f"step={step} 1 {ms_per_token * _NS_PER_MS:.2f} ns/token {1000 / ms_per_token:.2f} token/sec"
