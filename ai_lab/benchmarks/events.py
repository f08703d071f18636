"""What the process that measures tells the server: one event per line of JSON on its standard output."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from ai_lab.benchmarks.records import BlockDone, Phase, Record, Sample, Status
from ai_lab.benchmarks.schemas import Comparison, Progress, ReportBody

SampleKind = Literal["idle_before", "busy", "idle_after"]
#: How a report came about; a run that was cancelled, or whose server failed, has one of what was measured until then.
Outcome = Literal["complete", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class PackedRecord:
    """A record as it is stored, with what the database is asked for; ``data`` is ``Record.pack()``."""

    index: int
    block: int
    phase: Phase
    status: Status
    data: bytes

    @classmethod
    def of(cls, record: Record) -> Self:
        """Pack a record."""
        return cls(record.index, record.block, record.phase, record.status, record.pack())

    def unpack(self) -> Record:
        """Return the record; the phase is the one beside it, which may have become ``discarded`` later."""
        record = Record.unpack(self.data)
        record.phase = self.phase
        return record


@dataclass(frozen=True, slots=True)
class PackedSamples:
    """Samples of one kind as they are stored: compressed JSON."""

    kind: SampleKind
    data: bytes

    @classmethod
    def of(cls, kind: SampleKind, samples: list[Sample]) -> Self:
        """Pack samples."""
        return cls(kind, packed_json([asdict(sample) for sample in samples]))

    def unpack(self) -> list[Sample]:
        """Return the samples."""
        plain = unpacked_json(self.data)
        return [Sample(**{**one, "other_top": [(name, share) for name, share in one["other_top"]]}) for one in plain]


@dataclass(frozen=True, slots=True)
class RecordsMeasured:
    """Requests that have ended, about once a second and before the event of their block."""

    records: list[PackedRecord]


@dataclass(frozen=True, slots=True)
class RecordsEnded:
    """The same before packing, which takes milliseconds where answers are long: whoever writes does that."""

    records: list[Record]


@dataclass(frozen=True, slots=True)
class BlockMeasured:
    """A block is complete: a run that is taken up again does not repeat it."""

    block: BlockDone


@dataclass(frozen=True, slots=True)
class SamplesTaken:
    """Looks at the machine."""

    samples: PackedSamples


@dataclass(frozen=True, slots=True)
class StateChanged:
    """What a resumed run and an analysis need besides: instrument, provenance, cold loads … Keys replace earlier."""

    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reported:
    """The last event of a job that has something to report; ``error`` says what failed, where that is the outcome."""

    report: ReportBody
    outcome: Outcome
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """The last event of a comparison."""

    comparisons: list[Comparison]


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a job that did not: a code and a text of ``ai_lab.errors``."""

    code: str
    detail: str


Event = (
    Progress
    | RecordsEnded
    | RecordsMeasured
    | BlockMeasured
    | SamplesTaken
    | StateChanged
    | Reported
    | Compared
    | Failed
)


def encode(event: Event) -> bytes:  # noqa: PLR0911 - one line per kind of event
    """Return an event as one line; of ``RecordsEnded`` the one of ``RecordsMeasured``."""
    match event:
        case Progress():
            return line_of(event="progress", progress=event.model_dump(exclude_defaults=True) | {"phase": event.phase})
        case RecordsEnded():
            return encode(RecordsMeasured([PackedRecord.of(one) for one in event.records]))
        case RecordsMeasured():
            return line_of(event="records", records=[plain_record(one) for one in event.records])
        case BlockMeasured():
            return line_of(event="block", block=asdict(event.block))
        case SamplesTaken():
            return line_of(event="samples", samples=plain_samples(event.samples))
        case StateChanged():
            return line_of(event="state", state=event.state)
        case Reported():
            # Not by way of model_dump: pydantic's JSON has null for what is no number, and Python's has not.
            return line_of(
                event="report",
                outcome=event.outcome,
                error=event.error,
                report=event.report.model_dump_json(),
            )
        case Compared():
            return line_of(event="compared", comparisons=[one.model_dump_json() for one in event.comparisons])
        case Failed():
            return line_of(event="error", code=event.code, detail=event.detail)


def decode(line: bytes) -> Event | None:  # noqa: PLR0911 - as above
    """Return the event of a line, or None for a line that is none, such as what a library prints.

    Raises:
        ValueError: it is an event, but not a whole one.
    """
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict) or "event" not in values:
        return None
    try:
        match values["event"]:
            case "progress":
                return Progress.model_validate(values["progress"])
            case "records":
                return RecordsMeasured([record_of(one) for one in values["records"]])
            case "block":
                return BlockMeasured(BlockDone(**values["block"]))
            case "samples":
                return SamplesTaken(samples_of(values["samples"]))
            case "state":
                return StateChanged(values["state"])
            case "report":
                return Reported(ReportBody.model_validate_json(values["report"]), values["outcome"], values["error"])
            case "compared":
                return Compared([Comparison.model_validate_json(one) for one in values["comparisons"]])
            case "error":
                return Failed(values["code"], values["detail"])
            case _:
                return None
    except (KeyError, TypeError) as error:
        raise ValueError(f"an incomplete event: {error!r}") from error


def packed_json(values: Any) -> bytes:
    """Return values as they are stored: compressed JSON."""
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 6)


def unpacked_json(data: bytes) -> Any:
    """Return the values that ``packed_json`` stored."""
    return json.loads(zlib.decompress(data))


def line_of(**values: Any) -> bytes:
    """Return values as one line of JSON."""
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def plain_record(one: PackedRecord) -> list[Any]:
    """Return a record as JSON values."""
    return [one.index, one.block, one.phase, one.status, base64.b64encode(one.data).decode()]


def record_of(plain: list[Any]) -> PackedRecord:
    """Return the record that ``plain_record`` described."""
    return replace(PackedRecord(*plain), data=base64.b64decode(plain[-1]))


def plain_samples(samples: PackedSamples) -> list[str]:
    """Return samples as JSON values."""
    return [samples.kind, base64.b64encode(samples.data).decode()]


def samples_of(plain: list[Any]) -> PackedSamples:
    """Return the samples that ``plain_samples`` described."""
    return PackedSamples(plain[0], base64.b64decode(plain[1]))
