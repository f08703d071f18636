"""Every expression of the dashboards and rules, run by a real Prometheus over a real server that did real work."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping

import httpx
import pytest

from tests.deploy.assets import RULE_FILES, Target, rules, targets
from tests.fakes.nvml import TWO_GPUS, FakeNvml, compile_nvml
from tests.prometheus import PrometheusServer, needs_prometheus
from tests.server import ServerProcess

pytestmark = needs_prometheus

#: What this machine may not have, or this test does not do: pattern in an expression -> why it may be empty.
MAY_BE_EMPTY = {
    r"gpu": "no GPU here, and no compiler to make scripted ones",
    r"container": "not in a limited container",
    r"temperature": "virtual machines have no sensors",
    r"host_disk|host_network": "containers may have neither block devices nor interfaces",
    r"model_load": "echo loads nothing",
    r"unpriced": "echo tells its tokens",
    r"function": "nothing is under @monitor_performance here",
    r"cancelled|disconnects": "nobody leaves",
    r"sampler_errors": "every reading succeeds",
    r"^ALERTS": "no alert fires so early",
}


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Give the environment of a machine with two scripted GPUs; of this one where no C compiler makes their driver."""
    compiler = shutil.which("cc")
    if compiler is None:
        return {}
    libraries = tmp_path_factory.mktemp("libraries")
    compile_nvml(libraries, compiler)
    nvml = FakeNvml(tmp_path_factory.mktemp("nvml"), libraries)
    nvml.install()
    nvml.script(TWO_GPUS)
    return nvml.environment


@pytest.fixture(scope="module")
def server(gpus: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {
        **gpus,
        "AI_LAB_DEFAULT_MODEL": "echo/echo",
        "AI_LAB_METRICS_INTERVAL_SECONDS": "1",
        "AI_LAB_SERVERS": '{"gone": "http://127.0.0.1:9/v1"}',
        "AI_LAB_ALIASES": '{"either": ["gone/model", "echo/echo"]}',
        "AI_LAB_PRICES": '{"echo/echo": {"input": 1, "output": 1}, "gone/paid": {"input": 1, "output": 1}}',
        "AI_LAB_CACHE": "true",
    }
    with ServerProcess(tmp_path_factory.mktemp("scraped") / "data", settings) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """Give one that has seen the work, its beginning and its end in different scrapes."""
    folder = tmp_path_factory.mktemp("prometheus")
    with PrometheusServer(folder, {"ai-lab": f"{server.url}/metrics"}, rule_files=RULE_FILES) as prometheus:
        _work(server)
        prometheus.wait_for(f"timestamp(ai_lab_llm_requests_total) > {time.time()}")
        _work(server)
        recorded = "model:ai_lab_llm_requests:rate5m"
        prometheus.wait_for(f"{recorded} > 0 and timestamp({recorded}) > {time.time() + 3}")
        yield prometheus


def _work(server: ServerProcess) -> None:
    """Do a little of everything, the wrong things included."""
    words = "a llama is a small camel without a hump that carries loads over mountains"
    broke = {"name": "broke", "period": "day", "service": "gone", "model": "paid", "hard_usd": 0}
    with httpx.Client(base_url=server.url, timeout=30, headers={"x-ai-lab-cache": "off"}) as http:
        assert http.post("/budgets", json=broke).status_code in {201, 409}
        for number in range(5):
            session = f"work-{number}"
            assert http.post("/chat", json={"message": words, "session_id": session}).is_success
            assert http.post("/chat", json={"message": words, "session_id": session, "stream": True}).is_success
            assert http.get(f"/conversations/{session}/messages").is_success
            assert http.put(f"/agents/{session}/state", json={"message": words, "status": "running"}).is_success
            assert http.get(f"/nothing/{number}").status_code == 404
            failed = http.post("/chat", json={"message": words, "session_id": "failing", "model": "gone/model"})
            assert failed.is_server_error
            assert http.get("/health/detailed").status_code in {200, 503}
            either = {"model": "either", "messages": [{"role": "user", "content": words}]}
            assert http.post("/v1/chat/completions", json=either).is_success
            assert httpx.post(f"{server.url}/v1/chat/completions", json=either, timeout=60).is_success  # asks the cache
            assert http.post("/v1/chat/completions", json=either | {"model": "gone/paid"}).status_code == 402
        assert http.delete("/conversations/work-0").is_success


def _may_be_empty(expression: str, gpus: Mapping[str, str]) -> bool:
    if "gpu" in expression and gpus:
        return "gpu_process" in expression  # no program runs on a scripted GPU
    return any(re.search(pattern, expression) for pattern in MAY_BE_EMPTY)


def test_the_server_is_scraped_without_an_error(prometheus: PrometheusServer) -> None:
    [target] = prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize("target", targets(), ids=lambda target: f"{target.dashboard}: {target.panel}")
def test_a_panel_shows_something(prometheus: PrometheusServer, gpus: Mapping[str, str], target: Target) -> None:
    found = prometheus.query(target.runnable())
    if not _may_be_empty(target.expression, gpus):
        assert any(not math.isnan(value) for value in found.values()), target.expression


@pytest.mark.parametrize("rule", rules("record"), ids=lambda rule: rule["record"])
def test_a_rule_records_something(prometheus: PrometheusServer, gpus: Mapping[str, str], rule: dict[str, str]) -> None:
    found = prometheus.query(rule["record"])
    if not _may_be_empty(rule["record"], gpus):
        assert any(not math.isnan(value) for value in found.values()), rule["expr"]


def test_no_rule_ends_in_an_error(prometheus: PrometheusServer) -> None:
    groups = prometheus.api("rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules("record")) + len(rules("alert"))
    assert [(rule["name"], rule.get("lastError")) for rule in evaluated if rule["health"] != "ok"] == []


def test_what_alerts_watch_is_there(prometheus: PrometheusServer) -> None:
    """An alert over a label value that is never exported would stay silent for ever."""
    for rule in rules("alert"):
        for component, status in re.findall(r'component="(\w+)", status="(\w+)"', rule["expr"]):
            assert prometheus.query(f'ai_lab_health_status{{component="{component}", status="{status}"}}')
    assert prometheus.query('ai_lab_sampler_last_success_timestamp_seconds{source="host"}')


def test_an_alert_hears_what_a_gpu_says(prometheus: PrometheusServer, gpus: Mapping[str, str]) -> None:
    """The first of the scripted GPUs is held back by heat, the second is not."""
    if not gpus:
        pytest.skip("no C compiler (cc) here to make the scripted driver with")
    waiting = prometheus.query('ALERTS{alertname="AILabGpuThrottled", alertstate="pending"}')
    assert [json.loads(labels)["gpu"] for labels in waiting] == ["0"]


def test_routes_that_the_rules_leave_out_exist(server: ServerProcess) -> None:
    paths = httpx.get(f"{server.url}/openapi.json", timeout=60).json()["paths"]
    left_out = {
        pattern
        for rule in rules("record") + rules("alert")
        for part in re.findall(r'route!~"(.*?)"', rule["expr"])
        for pattern in re.split(r"\|(?=/)", part)
    }
    watching = "/(metrics|health|performance)(/.*)?"
    assert {pattern for pattern in left_out if "(" in pattern} == {watching}, "the same everywhere"
    assert [pattern for pattern in left_out if not any(re.fullmatch(pattern, path) for path in paths)] == []
    tags = {
        path: {tag for operation in methods.values() for tag in operation["tags"]} for path, methods in paths.items()
    }
    tagged = {path for path in paths if tags[path] & {"metrics", "health", "performance"}}
    assert {path for path in paths if re.fullmatch(watching, path)} == tagged
