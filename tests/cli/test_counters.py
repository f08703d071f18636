"""Counts out of Prometheus' text, and rates between two looks."""

from ai_lab.cli.counters import Counters, Rates, rates, read_counters

_TEXT = """\
# HELP ai_lab_http_requests_total Requests answered.
# TYPE ai_lab_http_requests_total counter
ai_lab_http_requests_total{method="POST",route="/chat",status="200"} 40.0
ai_lab_http_requests_total{method="POST",route="/chat",status="503"} 2.0
ai_lab_http_requests_total{method="GET",route="/conversations/{session_id}",status="404"} 3.0
ai_lab_http_requests_total{method="GET",route="/metrics",status="200"} 9000.0
ai_lab_http_requests_total{method="GET",route="/metrics/prometheus",status="200"} 9000.0
ai_lab_http_requests_total{method="GET",route="/health/live",status="200"} 9000.0
ai_lab_http_requests_total{method="GET",route="/performance/summary",status="200"} 9000.0
ai_lab_http_requests_in_progress 3.0
ai_lab_llm_tokens_total{model="a \\"b\\" } c",provider="echo",token_type="output"} 1.5e+03
ai_lab_llm_tokens_total{model="m",provider="echo",token_type="output"} 7.0
ai_lab_llm_tokens_total{model="m",provider="echo",token_type="input"} 99.0
ai_lab_llm_requests_in_progress{model="m",provider="echo"} 1.0
ai_lab_llm_requests_in_progress{model="n",provider="echo"} 1.0
ai_lab_http_requests_total_of_another_kind 5.0
"""


def test_the_requests_of_people_are_counted_and_not_those_that_watch() -> None:
    counters = read_counters(_TEXT, 7.0)
    assert counters == Counters(7.0, requests=45, errors=2, tokens=1507, requests_in_progress=2, answers_in_progress=2)


def test_a_server_that_has_counted_nothing_yet() -> None:
    assert read_counters("", 1.0) == Counters(1.0)


def test_rates_are_between_two_looks() -> None:
    before, after = Counters(10.0, 5, 1, 100), Counters(12.0, 9, 1, 150)
    assert rates(before, after) == Rates(requests=2.0, errors=0.0, tokens=25.0)
    assert rates(None, after) == Rates()


def test_a_server_that_was_started_anew_gives_no_negative_rate() -> None:
    assert rates(Counters(10.0, 500, 0, 9000), Counters(12.0, 1, 0, 0)) == Rates()
    assert rates(Counters(10.0, 0, 0, 9000), Counters(12.0, 1, 0, 5)) == Rates()
    assert rates(Counters(10.0), Counters(10.0)) == Rates()
