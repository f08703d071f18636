"""Reports for programs: JSON and its schema, JSON Lines, CSV, benchstat text, and what they load."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from array import array
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import SecretStr

from ai_lab.benchmarks.analysis.metrics import METRICS
from ai_lab.benchmarks.plan import Arm, GoodputSearch, OpenLoop, Plan, Prompts, Slo
from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports import NEEDS_RECORDS, ReportFormat, earlier_shape, json_schema, render
from ai_lab.benchmarks.reports.benchstat import benchstat_text
from ai_lab.benchmarks.reports.requests import tpot_ms
from ai_lab.benchmarks.reports.rows import COLUMNS
from ai_lab.benchmarks.schemas import Estimate, Progress, ReportBody, Run, RunStatus
from tests.benchmarks.example_run import ARMS, RUN_ID, example_records, example_run, example_samples

FORMATS: tuple[ReportFormat, ...] = get_args(ReportFormat)
_FORMULA = '=HYPERLINK("http://evil")'


def text(run: Run, fmt: ReportFormat, *, records: bool = True) -> str:
    given = (example_records(), example_samples()) if records else ((), ())
    return render(run, fmt, records=given[0], samples=given[1]).content.decode()


def unfinished(status: RunStatus, **values: Any) -> Run:
    return example_run().model_copy(update={"status": status, "report": None, "grade": None, **values})


def test_the_json_report_fits_the_published_schema_and_gives_the_run_back() -> None:
    run = example_run()
    values = json.loads(text(run, "json"))
    Draft202012Validator.check_schema(json_schema())
    Draft202012Validator(json_schema()).validate(values)
    assert values["$schema"] == json_schema()["$id"]
    assert Run.model_validate(values) == run


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("report", "grade"), "FINE"),
        (("report", "cells", 0, "counts", "ok"), "many"),
        (("plan", "seed"), -1),
        (("id",), 7),
    ],
)
def test_the_schema_refuses_what_no_run_says(path: tuple[str | int, ...], value: object) -> None:
    values = json.loads(text(example_run(), "json"))
    inner = values
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValidationError):
        Draft202012Validator(json_schema()).validate(values)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    "run",
    [
        unfinished("queued"),
        unfinished("running", progress=Progress(phase="measuring", done=3, total=9)),
        unfinished("failed", error="Every request failed: the server is not there.", error_code="benchmark_failed"),
        example_run().model_copy(update={"report": ReportBody(grade="INVALID", reasons=[], cells=[])}),
        example_run().model_copy(update={"plan": Plan(load=OpenLoop(rates=[0.5, 2]))}),
        example_run().model_copy(update={"plan": Plan(load=GoodputSearch(slo=Slo(ttft_ms=200)))}),
    ],
    ids=["queued", "running", "failed", "empty", "open", "search"],
)
def test_every_state_of_a_run_has_a_report_in_every_format(run: Run, fmt: ReportFormat) -> None:
    said = text(run, fmt, records=False)
    if fmt != "csv":
        assert RUN_ID in said
    if fmt in {"html", "markdown"}:
        assert (run.error or run.status) in said
    if fmt == "json":
        Draft202012Validator(json_schema()).validate(json.loads(said))


def test_no_format_holds_the_key_of_a_server() -> None:
    arm = Arm(model="m", url="http://127.0.0.1:9", api_key=SecretStr("sk-very-secret"))
    run = example_run().model_copy(update={"plan": Plan(arms=[arm, Arm(model="n")])})
    for fmt in FORMATS:
        assert "secret" not in text(run, fmt)
        assert "****" not in text(run, fmt, records=False)


def test_json_stays_json_whatever_a_server_reports() -> None:
    run = example_run()
    assert run.report is not None
    run.report.provenance["targets"] = {"a": {"speed": float("nan"), "half": "\ud800", "most": float("inf")}}
    record = next(example_records())
    record.raw_timings = {"rate": float("inf")}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for fmt in ("json", "jsonl"):
        for line in render(run, fmt, records=[record]).content.decode().split("\n" if fmt == "jsonl" else "\0"):
            assert not line or json.loads(line, parse_constant=refuse)


def test_json_lines_give_run_records_and_samples_back() -> None:
    lines = [json.loads(line) for line in text(example_run(), "jsonl").splitlines()]
    kinds = [line.pop("type") for line in lines]
    records, samples = list(example_records()), list(example_samples())
    assert kinds == ["run"] + ["record"] * len(records) + ["sample"] * len(samples)
    assert Run.model_validate(lines[0]) == example_run()
    assert [Record.from_dict(line) for line in lines[1 : 1 + len(records)]] == records
    back = [Sample(**line) for line in lines[1 + len(records) :]]
    assert [one.at_ns for one in back] == [one.at_ns for one in samples]


def test_csv_has_a_row_for_each_figure_with_its_interval() -> None:
    run = example_run()
    rows = list(csv.DictReader(io.StringIO(text(run, "csv"), newline="")))
    assert run.report is not None
    assert len(rows) == sum(len(cell.metrics) + len(cell.totals) for cell in run.report.cells)
    assert tuple(rows[0]) == COLUMNS
    ttft = next(row for row in rows if (row["arm"], row["level"], row["metric"]) == (ARMS[1], "2.0", "ttft"))
    expected = run.report.cells[4].metrics["ttft"]
    assert float(ttft["value"]) == expected.median.value
    assert float(ttft["low"]) == expected.median.low
    assert float(ttft["p95_high"]) == expected.percentiles["p95"].high
    assert ttft["p99_low"] == ""
    energy = next(row for row in rows if row["metric"] == "joules_per_token_gross")
    assert (energy["value"], energy["unit"]) == ("", "J/tok")
    assert energy["reason"].startswith("unavailable")


@pytest.mark.parametrize("name", [_FORMULA, "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1"])  # noqa: RUF001 - wide signs
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(text(example_run((name, "plain")), "csv"), newline="")))
    assert {row["arm"] for row in rows} == {f"'{name}", "plain"}
    changed = example_run()
    assert changed.report is not None
    changed.report.cells[0].totals["delay_ms"] = Estimate(value=-1.5, low=-2, high=-1)
    assert ",-1.5,-2.0,-1.0," in text(changed, "csv"), "negative numbers stay numbers"


def test_benchstat_has_lines_of_single_requests_that_go_tools_read() -> None:
    lines = text(example_run(("a model/with: odd=name\n", "a model/with: odd=name\t")), "benchstat").splitlines()
    results = [line for line in lines if line.startswith("Benchmark")]
    others = [line for line in lines if line not in results and not line.startswith("#")]
    assert all(re.fullmatch(r"Benchmark[A-Z]\S* 1( \d+(\.\d+)? \S+)+", line) for line in results)
    assert all(re.fullmatch(r"[a-z][^\sA-Z]*: [^\n]*", line) for line in others)
    assert "goos: linux" in lines
    assert "grade: SUSPECT" in lines
    good = [one for one in example_records() if one.status == "ok"]
    assert len([line for line in results if "/step=ttft " in line]) == len(good)
    assert len({line.split("/")[1] for line in results}) == 2, "arms that differ only in odd characters stay apart"
    span = (good[0].last_token_ns or 0) - (good[0].first_token_ns or 0)
    first = next(line for line in results if "/concurrency=1/step=generate" in line)
    assert f" {span / 31:.2f} ns/token " in first, "32 tokens have 31 times between them"
    assert any("9 requests without a whole answer are left out" in line for line in lines)


def test_benchstat_takes_no_cached_prompt_for_one_that_was_read() -> None:
    run = example_run()
    repeating = run.model_copy(update={"plan": run.plan.model_copy(update={"prompts": Prompts(mode="repeat")})})
    record = Record.from_dict(next(one for one in example_records() if one.status == "ok").to_dict())
    record.server_ms["prompt_ms"], record.prompt_tokens = 5.0, 100
    for cached_tokens, asked, is_there in ((None, run, True), (None, repeating, False), (90, repeating, True)):
        record.cached_tokens = cached_tokens
        assert ("/step=prefill " in benchstat_text(asked, [record])) == is_there
    assert "step=prefill 1 500000.00 ns/token" in benchstat_text(repeating, [record]), "of the ten that were read"


def test_times_per_token_are_those_of_the_definition() -> None:
    stamps = array("q", [10, 10, 30_000_000, 30_000_000, 50_000_000])
    base = next(example_records())
    for tokens, sizes, finish in (
        (5, [], "length"),
        (6, [], "stop"),
        (9, [2, 1, 3, 1, 2], None),
        (2, [], "length"),
        (0, [], ""),
    ):
        record = Record.from_dict(base.to_dict())
        record.chunk_ns, record.chunk_tokens = stamps, array("i", sizes)
        record.first_token_ns, record.last_token_ns = stamps[0], stamps[-1]
        record.completion_tokens, record.finish_reason = tokens, finish
        of = METRICS["tpot"].of
        assert of is not None
        assert tpot_ms(record) == pytest.approx(of(record)) or tpot_ms(record) is None


def test_the_earlier_shape_has_times_of_successes_and_counts_failures() -> None:
    run = example_run()
    run = run.model_copy(update={"plan": Plan(arms=[Arm(model="embedded/tiny")], prompts=Prompts(texts=["Why?"]))})
    records = [one for one in example_records() if (one.arm, one.level) == (1, 0)]
    records[0].phase = "warmup"
    said = earlier_shape(run, reversed(records))
    good = [one for one in records[1:] if one.status == "ok"]
    times = [((one.last_token_ns or 0) - (one.sent_ns or 0)) / 1e9 for one in good]
    assert said["times"] == pytest.approx(times)
    assert (said["model_name"], said["prompt_length"], said["iterations"]) == ("embedded/tiny", 4, 10)
    assert said["avg_time"] == pytest.approx(sum(times) / len(times))
    assert (said["min_time"], said["max_time"]) == (min(times), max(times))
    assert said["total_time"] == pytest.approx(sum(times))
    assert said["failed"] == 3
    assert said["median_time"]["value"] == pytest.approx(0.422)
    assert said["grade"] == "SUSPECT"
    assert said["benchmark_id"] == RUN_ID
    json.dumps(said, allow_nan=False)
    nothing = earlier_shape(unfinished("failed"), [])
    assert (nothing["times"], nothing["avg_time"], nothing["total_time"], nothing["grade"]) == ([], None, 0, None)


def test_only_formats_that_say_so_read_records() -> None:
    for fmt in FORMATS:
        records, samples = example_records(), example_samples()
        render(example_run(), fmt, records=records, samples=samples)
        assert bool(list(records)) == (fmt not in NEEDS_RECORDS), fmt


def test_a_process_that_renders_loads_no_numbers_library() -> None:
    script = (
        "import sys; from tests.benchmarks.example_run import *; from ai_lab.benchmarks.reports import render;"
        "import ai_lab.benchmarks.notebook;"
        f"[render(example_run(), f, records=example_records(), samples=example_samples()) for f in {FORMATS!r}];"
        "heavy = {'numpy', 'scipy', 'pandas', 'matplotlib', 'aiohttp', 'tqdm'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
