"""What answers tell browsers: load nothing, guess nothing, keep nothing, and never in a frame."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import httpx
import pytest

from backend.security_headers import DEFAULT_HEADERS
from tests.security.operations import operations


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health/live", 200),
        ("GET", "/", 200),
        ("GET", "/none", 404),
        ("PUT", "/chat", 405),
        ("POST", "/chat", 422),
        ("GET", "/metrics/prometheus", 200),
        ("GET", "/export/conversations", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/none", 404),
        ("GET", "/docs/assets/swagger-ui.css", 200),
        ("GET", "/docs/assets/%2e%2e/%2e%2e/etc/passwd", 404),
    ],
)
def test_every_kind_of_answer_has_the_headers(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in DEFAULT_HEADERS} == DEFAULT_HEADERS


def test_all_that_can_be_read_has_the_headers(http: httpx.Client) -> None:
    for _, path in operations(http, "get"):
        if path.endswith("/events"):
            continue
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path


def test_the_docs_run_their_own_script_and_no_other(http: httpx.Client) -> None:
    answer = http.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    sums = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts}
    assert len(sums) == 1
    assert set(policy["script-src"].split()) == {"'self'", *sums}
    assert policy["connect-src"] == "'self'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert set(re.findall(r'(?:src|href)="([^"]+)"', answer.text)) <= {
        f"/docs/assets/{name}" for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon.png")
    }


def test_a_report_cannot_run_scripts_or_reach_the_api(http: httpx.Client) -> None:
    done = http.post(
        "/benchmark/llm", params={"model_name": "echo/echo", "prompt": "<script>1</script>", "iterations": 1}
    )
    assert done.status_code == 200, done.text
    run_id = http.get("/benchmarks").json()["data"][0]["id"]
    answer = http.get(f"/benchmarks/{run_id}/report", params={"format": "html"})
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "sandbox" in policy.split("; ")
    assert "script-src" not in policy
    assert "<script" not in answer.text


def test_the_login_page_has_no_inline_script_or_style() -> None:
    page = (Path(__file__).parents[2] / "backend" / "ui" / "login.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|https?:", page)
