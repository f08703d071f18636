"""The run as it is stored (JSON) and with everything it was computed from (JSON Lines)."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports.schema import SCHEMA_ID
from ai_lab.benchmarks.schemas import Run
from ai_lab.errors import SourceDamaged


def run_values(run: Run) -> dict[str, Any]:
    """Return the run as JSON values, with the reference to its schema first and without keys of servers."""
    values = run.model_dump(mode="json", exclude={"plan": {"arms": {"__all__": {"api_key"}}}})
    return {"$schema": SCHEMA_ID, **values}


def json_text(run: Run) -> str:
    """Return the run as indented JSON."""
    return _strict(run_values(run), indent=2) + "\n"


def jsonl_lines(run: Run, records: Iterable[Record], samples: Iterable[Sample] = ()) -> Iterator[str]:
    """Yield one JSON object a line: the run, then every record, then every sample; ``type`` says which.

    Lines come as they are asked for, so that a long run can be sent without holding all of it.
    """
    yield jsonl_line(run)
    yield from map(jsonl_line, records)
    yield from map(jsonl_line, samples)


def jsonl_line(part: Run | Record | Sample) -> str:
    """Return one line of ``jsonl_lines``."""
    if isinstance(part, Run):
        values = {"type": "run", **run_values(part)}
    elif isinstance(part, Record):
        values = {"type": "record", **part.to_dict()}
    else:
        values = {"type": "sample", **asdict(part)}
    return _strict(values) + "\n"


def read_lines(content: bytes) -> Iterator[Run | Record | Sample]:
    """Yield what ``jsonl_lines`` wrote, in its order.

    Raises:
        SourceDamaged: A line is no part of a saved benchmark; it names the line.
    """
    for number, line in enumerate(io.BytesIO(content), start=1):
        if line.isspace():
            continue
        try:
            values = dict(json.loads(line))
            kind = values.pop("type", "run" if number == 1 else None)
            part = _READERS[kind](values)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = f"This is no saved benchmark: {' '.join(str(error).split())[:200]}"
            raise SourceDamaged(reason, origin="benchmark", position={"line": number}) from None
        yield part


def read_jsonl(content: bytes) -> Iterator[Record]:
    """Yield the records that ``jsonl_lines`` wrote. Raises ``SourceDamaged`` as ``read_lines`` does."""
    return (one for one in read_lines(content) if isinstance(one, Record))


_READERS: dict[str | None, Callable[[dict[str, Any]], Run | Record | Sample]] = {
    "run": Run.model_validate,
    "record": Record.from_dict,
    "sample": lambda values: Sample(**values),
}


def _strict(values: dict[str, Any], indent: int | None = None) -> str:
    separators = (",", ": ") if indent else (",", ":")
    try:
        return json.dumps(values, ensure_ascii=True, allow_nan=False, indent=indent, separators=separators)
    except ValueError:  # a server's own fields, kept verbatim, may hold what JSON has no word for
        return json.dumps(_finite(values), ensure_ascii=True, indent=indent, separators=separators)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
