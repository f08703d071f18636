"""What a service says about a key: every state of every service, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import Callable

import pytest

from ai_lab.errors import AddressRefused
from ai_lab.providers.known_services import known_services
from ai_lab.providers.outbound import Outbound
from ai_lab.vault.checks import _below, check_key
from ai_lab.vault.schemas import CheckReport
from tests.fakes.http_server import FakeServer, Reply, json_reply
from tests.fakes.key_service import REFUSALS, WELCOMES, KeyService, anthropic_error, google_error, openai_error

KEY = f"sk-CANARY{secrets.token_hex(16)}"
ALL = [*known_services(), "custom"]
PAGE = Reply([b"<!doctype html><title>Welcome</title>"], 200, {"content-type": "text/html"})


async def check(service: KeyService, key: str = KEY, *, timeout_seconds: float = 5) -> CheckReport:
    report = await check_key(
        service.row(), service.base_url, key, Outbound(), is_local=True, timeout_seconds=timeout_seconds
    )
    assert "CANARY" not in report.model_dump_json()
    return report


def with_key(service: KeyService) -> int:
    return sum(any(KEY in value for value in request.headers.values()) for request in service.requests)


@pytest.mark.parametrize("name", ALL)
async def test_right_key_is_valid_and_a_wrong_one_is_not(name: str) -> None:
    async with KeyService(name, KEY) as service:
        report = await check(service)
        assert (report.result, report.status) == ("valid", 200)
        assert report.latency_ms is not None
        assert 0 < report.latency_ms < 5000
        assert with_key(service) == 1
        assert all(KEY not in request.path and KEY.encode() not in request.body for request in service.requests)
        assert {request.path for request in service.requests} == {service.check_path}
        assert (await check(service, f"sk-CANARY{secrets.token_hex(16)}")).result == "invalid"


@pytest.mark.parametrize("name", ALL)
async def test_service_that_answers_everybody_proves_nothing(name: str) -> None:
    async with KeyService(name, KEY, is_public=True) as service:
        report = await check(service, f"sk-CANARY{secrets.token_hex(16)}")
        trusted = {"openai", "anthropic", "google", "cohere", "huggingface", "openrouter"}  # at their own addresses
        assert report.result == ("valid" if name in trusted else "unknown")
        assert len(service.requests) == (1 if name in trusted else 2)
        if name not in trusted:
            assert "answers everybody" in report.message


@pytest.mark.parametrize("name", ALL)
async def test_known_service_at_an_address_of_the_user_must_refuse_requests_without_a_key(name: str) -> None:
    service = known_services().get(name)
    async with KeyService(name, KEY, is_public=True) as public, KeyService(name, KEY) as strict:
        for server, expected in ((public, "unknown"), (strict, "valid")):
            if name == "huggingface":  # an inference endpoint of one's own speaks as OpenAI does
                server.name = "custom"
            report = await check_key(service, server.base_url, KEY, Outbound(), is_local=True)
            assert (report.result, with_key(server)) == (expected, 1)


OPENAI_SCOPES = "You have insufficient permissions for this operation. Missing scopes: api.model.read."
STATES: list[tuple[str, Reply, str, str]] = [
    ("openai", openai_error(OPENAI_SCOPES, 401), "valid_restricted", "Missing scopes: api.model.read"),
    ("openai", openai_error(OPENAI_SCOPES, 403), "valid_restricted", "may not list models"),
    ("openai", openai_error("You exceeded your quota.", 429, "insufficient_quota"), "valid_no_quota", "credit"),
    ("openai", openai_error("Slow down.", 429, "rate_limit_exceeded"), "rate_limited", "later"),
    ("openai", openai_error("Deactivated.", 401, "account_deactivated"), "blocked", "blocked"),
    ("openai", openai_error("No.", 403, "unsupported_country_region_territory"), "unknown", "country"),
    ("anthropic", anthropic_error(403, "permission_error", "Not allowed."), "valid_restricted", "Not allowed."),
    ("anthropic", anthropic_error(403, "forbidden", "Request not allowed"), "blocked", "refuses"),
    ("anthropic", anthropic_error(400, "invalid_request_error", "Bad request."), "unknown", "HTTP 400"),
    ("anthropic", anthropic_error(429, "rate_limit_error", "Slow down."), "rate_limited", "later"),
    ("anthropic", anthropic_error(529, "overloaded_error", "Overloaded"), "unknown", "HTTP 529"),
    ("google", google_error(401, "UNAUTHENTICATED", "Bad."), "invalid", "does not accept"),
    ("google", google_error(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), "blocked", "leaked"),
    ("google", google_error(403, "PERMISSION_DENIED", "No.", "API_KEY_SERVICE_BLOCKED"), "blocked", "Gemini"),
    ("google", google_error(400, "FAILED_PRECONDITION", "Location not supported."), "unknown", "Location"),
    ("azure", json_reply({"error": {"code": "404", "message": "Resource not found"}}, 404), "wrong_endpoint", "404"),
    ("azure", json_reply({"error": {"code": "403", "message": "Virtual Network rules"}}, 403), "blocked", "Network"),
    ("cohere", json_reply({"message": "invalid api token"}, 401), "invalid", "invalid api token"),
    ("cohere", json_reply(WELCOMES["openai"]), "wrong_endpoint", "not that of Cohere"),
    ("huggingface", json_reply({"error": "Payment required"}, 402), "valid_no_quota", "credit"),
    ("openrouter", json_reply({"data": {"limit": 5, "limit_remaining": 0}}), "valid_no_quota", "used up"),
    ("openrouter", json_reply({"data": {"is_management_key": True}}), "valid_restricted", "cannot call models"),
    ("together", Reply([b"[" + 9000 * b'{"id": "some-model"},'], 200), "unknown", "answers everybody"),
    ("custom", json_reply({"detail": "Method Not Allowed"}, 405), "wrong_endpoint", "405"),
]


@pytest.mark.parametrize(("name", "reply", "result", "text"), STATES)
async def test_states_that_single_services_know(name: str, reply: Reply, result: str, text: str) -> None:
    async with KeyService(name, KEY) as service:
        service.script(service.check_path, reply)
        report = await check(service)
        assert (report.result, report.status) == (result, reply.status)
        assert text in report.message
        assert with_key(service) == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (json_reply({"error": {"message": "x"}}, 500), "unknown"),
        (json_reply({"error": {"message": "x"}}, 503, retry_after="7"), "unknown"),
        (json_reply({"error": {"message": "Slow down."}}, 429, retry_after="7"), "rate_limited"),
        (json_reply({"error": {"message": "Where?"}}, 404), "wrong_endpoint"),
        (PAGE, "wrong_endpoint"),
        (Reply([b"<html>blocked by the gateway"], 403, {"content-type": "text/html"}), "unknown"),
        (Reply([], 200, ending="cut"), "unreachable"),
        (json_reply({"error": {"message": "x"}}, 200), None),
        (Reply([b"{"], 200, ending="cut"), "unreachable"),
    ],
)
async def test_states_that_all_services_share(name: str, reply: Reply, result: str | None) -> None:
    async with KeyService(name, KEY) as service:
        service.script(service.check_path, reply)
        report = await check(service)
        assert report.result == (result or ("wrong_endpoint" if name == "cohere" else "unknown"))
        assert with_key(service) == 1


@pytest.mark.parametrize("name", ALL)
async def test_key_that_the_service_repeats_is_taken_out(name: str) -> None:
    masked = f"{KEY[:12]}****{KEY[-4:]} {KEY[:5]}***"
    text = f"Wrong key: {KEY}, that is '{masked}' or ...{KEY[-4:]}; {KEY.upper()} {KEY[3:-3]}. Ask your admin."
    async with KeyService(name, KEY) as service:
        for status in (400, 401, 403, 500):
            service.script(
                service.check_path, json_reply({"error": {"message": text, "reason": KEY, "type": KEY}}, status)
            )
            report = (await check(service)).model_dump_json()
            assert KEY[-4:] not in report
            assert KEY[:5] not in report
            assert "Ask your admin." in report


@pytest.mark.parametrize("name", ["openai", "huggingface", "custom"])
async def test_redirects_are_not_followed(name: str) -> None:
    async with KeyService(name, KEY) as service, FakeServer() as elsewhere:
        for status, target in (
            (302, elsewhere.origin),
            (307, f"{elsewhere.origin}/v1/models"),
            (301, "/other"),
            (308, ""),
        ):
            service.script(service.check_path, Reply([], status, {"location": target}))
            report = await check(service)
            assert (report.result, report.status) == ("wrong_endpoint", status)
            assert (elsewhere.origin in report.message) == (elsewhere.origin in target)
        service.script(service.check_path, Reply([], 302, {"location": f"https://{KEY.lower()}.example/"}))
        assert KEY.lower() not in (await check(service)).message
        assert elsewhere.connection_count == 0
        assert len(service.requests) == 5


async def test_endless_and_compressed_bodies_are_not_read_on() -> None:
    async with KeyService("openai", KEY) as service:
        piece = b"[" + 65_000 * b" "
        service.script(service.check_path, Reply([piece] * 3, 200, ending="hang"))
        assert (await check(service)).result == "valid"
        (request,) = service.requests
        await asyncio.wait_for(request.disconnected.wait(), 30)
        bomb = gzip.compress(json.dumps({"data": "0" * 10_000_000}).encode())
        service.script(service.check_path, Reply([bomb], 200, {"content-encoding": "gzip"}))
        assert (await check(service)).result == "wrong_endpoint"
        assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "reply",
    [
        Reply([5.0], 200),
        Reply([b"{", 5.0, b"}"], 200),
        Reply([part for _ in range(100) for part in (b" ", 0.05)], 200),
    ],
)
async def test_whole_check_has_one_time_limit(reply: Reply) -> None:
    async with KeyService("openai", KEY) as service:
        service.script(service.check_path, reply)
        report = await check(service, timeout_seconds=0.3)
        assert (report.result, report.latency_ms) == ("unreachable", None)
        assert "0.3 s" in report.message
        assert with_key(service) == 1


async def test_server_that_is_away_is_unreachable() -> None:
    async with KeyService("openai", KEY) as service:
        row, base_url = service.row(), service.base_url
    report = await check_key(row, base_url, KEY, Outbound(), is_local=True)
    assert (report.result, report.status) == ("unreachable", None)
    assert "nothing listens there" in report.message


async def test_name_that_does_not_exist_is_unreachable() -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        raise OSError

    report = await check_key(None, "https://nowhere.example/v1", KEY, Outbound(resolve=resolve))
    assert report.result == "unreachable"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://169.254.169.254/",
        "http://127.0.0.1:1/v1",
        "file:///etc/passwd",
        "http://a@b/",
        "http://127.0.0.1\\@1.1.1.1",
    ],
)
async def test_nothing_goes_to_forbidden_addresses(base_url: str) -> None:
    with pytest.raises(AddressRefused):
        await check_key(None, base_url, KEY, Outbound())


async def test_name_that_leads_to_a_forbidden_address_is_refused() -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["169.254.169.254"]

    with pytest.raises(AddressRefused):
        await check_key(None, "https://rebinding.example/v1", KEY, Outbound(resolve=resolve))


@pytest.mark.parametrize("key", ["", "CANARY two words", "CANARYé", "CANARY\r\nx: y"])
async def test_what_no_header_can_carry_is_not_sent(key: str) -> None:
    async with KeyService("openai", KEY) as service:
        assert (await check(service, key)).result == "invalid"
        assert not service.requests


@pytest.mark.parametrize(
    ("control", "result"),
    [
        (REFUSALS["custom"], "valid"),
        (Reply([b"Forbidden"], 403), "valid"),
        (json_reply({}, 500), "unknown"),
        (json_reply({}, 429), "unknown"),
        (Reply([], ending="cut"), "unknown"),
    ],
)
async def test_second_request_decides_and_carries_no_key(control: Reply, result: str) -> None:
    async with KeyService("custom", KEY) as service:
        service.script(service.check_path, json_reply(WELCOMES["custom"]), control)
        assert (await check(service)).result == result
        first, second = service.requests
        assert first.headers.pop("authorization") == f"Bearer {KEY}"
        assert "CANARY" not in str(second)
        assert first.headers == second.headers


async def test_details_worth_showing() -> None:
    async with KeyService("openrouter", KEY) as service:
        report = await check(service)
        assert report.details == {"limit": 5, "limit_remaining": 4.5, "usage": 0.5, "is_free_tier": False}
        service.script(
            service.check_path, Reply([b'{"data": {"limit": NaN, "usage": 1e999, "limit_remaining": "%d"}}' % 0])
        )
        assert (await check(service)).details == {}
    async with KeyService("huggingface", KEY) as service:
        assert (await check(service)).details == {"role": "read"}
        for rights, result in ((["repo.write"], "valid_restricted"), (["inference.serverless.write"], "valid")):
            token = {"role": "fineGrained", "fineGrained": {"scoped": [{"permissions": rights}]}}
            service.script(service.check_path, json_reply({"auth": {"accessToken": token}}))
            assert (await check(service)).result == result


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("https://a.example/v1", "/models", "https://a.example/v1/models"),
        ("https://a.example/", "/v1/models?limit=1", "https://a.example/v1/models?limit=1"),
        ("https://a.example/proxy/v1/", "/v1/models?limit=1", "https://a.example/proxy/v1/models?limit=1"),
        ("https://a.example/openai/v1", "/openai/v1/models", "https://a.example/openai/v1/models"),
        ("https://a.example/openai", "/openai/v1/models", "https://a.example/openai/v1/models"),
        ("https://a.example/?x=1#y", "/models", "https://a.example/models"),
        ("https://v1", "/v1/models", "https://v1/v1/models"),
    ],
)
def test_check_hangs_on_the_address_of_the_user(base_url: str, path: str, url: str) -> None:
    assert _below(base_url, path) == url


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reply([b"[" * 60_000], 401),
        lambda: Reply([b"\xff\xfe\x00"], 401),
        lambda: json_reply({"error": {"message": {"a": [1]}, "code": 7}}, 401),
        lambda: json_reply({"error": ["x"]}, 401),
        lambda: json_reply([], 401),
        lambda: Reply([b'{"error": {"message": "' + b"a" * 60_000 + b'"}}'], 401),
    ],
)
async def test_odd_bodies_do_no_harm(make: Callable[[], Reply]) -> None:
    for name in ALL:
        async with KeyService(name, KEY) as service:
            service.script(service.check_path, make())
            report = await check(service)
            assert report.result == "invalid"
            assert len(report.message) < 500
