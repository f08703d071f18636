"""The process that measures: what it says, and what it makes of what is stored."""

from __future__ import annotations

import sys
from array import array

import psutil

from ai_lab.benchmarks.events import RecordsEnded, RecordsMeasured, decode, encode
from ai_lab.benchmarks.job import Job, StoredRun
from ai_lab.benchmarks.measurement import stored_data
from ai_lab.benchmarks.plan import GoodputSearch, Plan, Slo
from ai_lab.benchmarks.records import Record

_CANNOT_BE_SAID = """
import time
from ai_lab.benchmarks.events import StateChanged
from ai_lab.benchmarks.worker import _Output
_Output().tell(StateChanged({"no": object()}))
time.sleep(60)
"""


def test_a_process_that_can_say_no_more_ends() -> None:
    with psutil.Popen([sys.executable, "-c", _CANNOT_BE_SAID], stderr=-1) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"not JSON serializable" in said


def test_records_are_packed_when_they_are_written() -> None:
    record = Record(7, 1, 0, 0, "measured", "abc", status="ok", chunk_ns=array("q", [5, 9]))
    told = decode(encode(RecordsEnded([record])))
    assert isinstance(told, RecordsMeasured)
    assert [one.unpack() for one in told.records] == [record]


def test_a_search_expects_the_requests_of_the_rates_that_it_tried() -> None:
    load = GoodputSearch(slo=Slo(ttft_ms=100), requests=20)
    run = StoredRun("r", Plan(load=load), state={"searched": [[0.5, 0], [1.0, 1], [2.0, 2]]})
    assert stored_data(Job("analyse", run)).expected_requests == 60
    assert stored_data(Job("analyse", StoredRun("r", Plan(load=load)))).expected_requests == 20
