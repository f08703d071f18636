"""Records wait for a thread: in order, as they were, in bounded number, and whoever logs waits for nothing."""

import io
import logging
import threading
from collections.abc import Iterator

import pytest

from ai_lab.logging.context import RequestIds, request_ids
from ai_lab.logging.queued import QueuedHandler, Sink

_SECONDS = 60


class _Output(io.StringIO):
    """A terminal that takes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write, self.is_writing = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.is_writing.set()
        assert self.may_write.wait(_SECONDS)
        return super().write(text)


@pytest.fixture
def output() -> _Output:
    return _Output()


@pytest.fixture
def handler(output: _Output) -> Iterator[QueuedHandler]:
    sink = Sink(output)
    sink.setFormatter(logging.Formatter("%(message)s"))
    handler = QueuedHandler([sink], capacity=20)
    yield handler
    output.may_write.set()
    handler.close()


@pytest.fixture
def logger(handler: QueuedHandler) -> logging.Logger:
    logger = logging.Logger("tests.queue")  # noqa: LOG001 - one that outlives no test
    logger.addHandler(handler)
    return logger


def test_nobody_waits_and_what_is_too_much_is_counted(
    logger: logging.Logger, output: _Output, handler: QueuedHandler
) -> None:
    logger.info("first")
    assert output.is_writing.wait(_SECONDS)
    for number in range(50):
        logger.info("entry %d", number)
    output.may_write.set()
    handler.close()
    lines = output.getvalue().splitlines()
    assert "log entries were dropped" in lines
    lines.remove("log entries were dropped")
    assert lines == ["first", *(f"entry {number}" for number in range(20))]


def test_how_many_were_dropped_is_said(logger: logging.Logger, output: _Output, handler: QueuedHandler) -> None:
    handler._sinks[0].setFormatter(
        logging.Formatter("%(message)s %(entries_dropped)s", defaults={"entries_dropped": 0})
    )
    logger.info("first")
    assert output.is_writing.wait(_SECONDS)
    for _ in range(50):
        logger.info("x")
    output.may_write.set()
    handler.close()
    assert "log entries were dropped 30" in output.getvalue()


def test_an_entry_is_what_it_was_when_it_was_logged(
    logger: logging.Logger, output: _Output, handler: QueuedHandler
) -> None:
    handler._sinks[0].setFormatter(logging.Formatter("%(message)s %(request_id)s %(trace_id)s"))
    changing = ["early"]
    token = request_ids.set(RequestIds("r1", "t1"))
    logger.info("%s", changing)
    request_ids.reset(token)
    changing.append("late")
    output.may_write.set()
    handler.close()
    assert output.getvalue() == "['early'] r1 t1\n"


def test_an_entry_that_cannot_be_made_leaves_a_word_and_no_content(
    logger: logging.Logger, output: _Output, handler: QueuedHandler
) -> None:
    handler._sinks[0].setFormatter(logging.Formatter("%(message)s %(from_logger)s %(error)s", defaults={"error": ""}))
    output.may_write.set()
    logger.info("%d pieces", "CANARY")  # its text does not fit
    logger.info("no field of this format: CANARY")
    handler.close()
    assert output.getvalue() == (
        "a log entry could not be put together tests.queue TypeError\n"
        "a log entry could not be shown tests.queue ValueError\n"
    )


def test_a_closed_output_ends_nothing(logger: logging.Logger, output: _Output, handler: QueuedHandler) -> None:
    output.may_write.set()
    output.close()
    logger.info("to nobody")
    logger.info("to nobody")
    handler.close()
    assert not handler._thread.is_alive()
