"""What took long is said, and a slow disk does not fill it with that."""

import logging
import threading

import pytest

from ai_lab.logging.slow import SlowOperations, _Window


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_what_takes_longer_than_the_threshold_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowOperations(100)
    slow("database", "append_message", 0.0999)
    slow("database", "append_message", 0.1234)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "slow operation")
    fields = {name: record.__dict__[name] for name in ("kind", "operation", "duration_ms")}
    assert fields == {"kind": "database", "operation": "append_message", "duration_ms": 123.4}


def test_zero_logs_none(caplog: pytest.LogCaptureFixture) -> None:
    SlowOperations(0)("http", "GET /", 1e9)
    assert caplog.records == []


def test_many_of_a_kind_are_counted_instead_and_other_kinds_still_heard(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowOperations(1)

    def record_many() -> None:
        for _ in range(50):
            slow("database", "x", 1)

    threads = [threading.Thread(target=record_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slow("http", "GET /", 1)
    kinds = [record.__dict__["kind"] for record in caplog.records]
    assert (kinds.count("database"), kinds.count("http")) == (10, 1)


def test_the_next_minute_says_how_many_were_left_out() -> None:
    window = _Window()
    assert [window.enter(100.0) for _ in range(12)] == [0] * 10 + [None] * 2
    assert window.enter(159.9) is None
    assert window.enter(160.0) == 3
    assert window.enter(160.0) == 0
