"""Fail services in every way behind a running server, and count what its clients see, what is asked and what is paid.

Every fault, alone and with a healthy model behind it, through /chat and /v1, whole and streamed; a dead service under
many clients; one of two services that fails at random; many clients at a hard budget.

Run: python scripts/measure_gateway_faults.py [--chats 2000] [--clients 100] [--spenders 50]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.measurement import Row, at_most, none_of, report
from tests.connection import Connection
from tests.fakes.faulty_provider import ANSWER, FAULTS, HARMLESS, LATE, FaultyProvider
from tests.gateway.test_faults import COST_USD, ERRORS, NOT_PASSED_ON, UNREACHABLE
from tests.server import ServerProcess

_DEADLINE_SECONDS, _LATE_SHARE = 2.0, 0.1
#: How long a silent service is waited for: while the time for the whole answer allows a second try, or for all of it.
_SHORT_TIMEOUT_SECONDS, _LONG_TIMEOUT_SECONDS = 0.5, 60.0
#: They end with the time for the answer alone, where a service may be silent for longer.
_HANGING = ("silent", "hang", "hang_late", "endless")
#: Path, and whether the answer is streamed.
_WAYS = (("/chat", False), ("/chat", True), ("/v1/chat/completions", False), ("/v1/chat/completions", True))
_VARIANTS = 2 * len(_WAYS)
_ATTEMPTS, _FAILURES, _PLACES = 2, 5, 8
_FAILING_SHARE, _ERROR_PERCENT, _AT_ONCE = 0.3, 0.5, 16
_HARD_ANSWERS = 200
_ROUNDING_USD = 1e-9
_PRICE = {"input": 1.0, "output": 10.0}


@dataclass
class Outcome:
    """What a client got: text, code of the error, and the seconds until all of it was there."""

    text: str = ""
    code: str | None = None
    seconds: float = 0.0
    is_well_formed: bool = True


@dataclass
class Figures:
    """What was counted; ``wrong`` says in words what was not as it must be."""

    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: Outcome = field(default_factory=Outcome)
    books: list[tuple[int, float]] = field(default_factory=list)  # models with other attempts, dollars too many or few
    dead: Counter[str] = field(default_factory=Counter)
    dead_asked: int = 0
    shaky: Counter[str] = field(default_factory=Counter)
    shaky_failed: int = 0
    budget: dict[str, float] = field(default_factory=dict)


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chats", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--spenders", type=int, default=50)
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), options, figures))
    return report("The gateway while services fail", _rows(figures, options), _notes(figures, options))


async def _measure(folder: Path, options: argparse.Namespace, figures: Figures) -> None:
    await _every_fault(folder / "short", tuple(ERRORS) + tuple(HARMLESS), _SHORT_TIMEOUT_SECONDS, figures)
    await _every_fault(folder / "long", _HANGING, _LONG_TIMEOUT_SECONDS, figures)
    names = ("dead", "shaky", "steady", "paid")
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FaultyProvider(seed=1)) for name in names}
        settings = {
            "AI_LAB_ALIASES": json.dumps({"either": {"models": ["shaky/tiny", "steady/tiny"]}}),
            "AI_LAB_SERVICE_LIMITS": json.dumps({"dead": {"concurrency": _PLACES}}),
            "AI_LAB_BREAKER_SECONDS": "1",
        }
        urls = {name: fake.base_url for name, fake in fakes.items()}
        server = await stack.enter_async_context(_served(folder / "load", urls, settings))
        await _dead(server.url, fakes["dead"], options.clients, figures)
        await _shaky(server.url, fakes["shaky"], options.chats, figures)
        await _spend(server.url, fakes["paid"], options.spenders, figures)


@asynccontextmanager
async def _served(data_dir: Path, urls: Mapping[str, str], settings: Mapping[str, str]) -> AsyncIterator[ServerProcess]:
    given = {
        "AI_LAB_SERVERS": json.dumps({name: {"base_url": url} for name, url in urls.items()}),
        "AI_LAB_PRICES": json.dumps({f"{name}/*": _PRICE for name in urls}),
        "AI_LAB_DEADLINE_SECONDS": str(_DEADLINE_SECONDS),
        "AI_LAB_RETRY_ATTEMPTS": str(_ATTEMPTS),
        "AI_LAB_BREAKER_FAILURES": str(_FAILURES),
        "AI_LAB_RATE_LIMITS": "false",
        **settings,
    }
    server = ServerProcess(data_dir, given, is_anew=True)
    await asyncio.to_thread(server.start)  # the fakes answer meanwhile
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


# -- every fault -------------------------------------------------------------------------------------------------------


async def _every_fault(data_dir: Path, faults: tuple[str, ...], timeout_seconds: float, figures: Figures) -> None:
    async with FaultyProvider(variants=_VARIANTS) as faulty, FaultyProvider() as healthy:
        faulty.retry_after_seconds = 0.05
        urls = {"faulty": faulty.base_url, "healthy": healthy.base_url, **faulty.unreachable()}
        models = [_model(fault, number) for fault in faults for number in range(_VARIANTS)]
        settings = {
            "AI_LAB_ALIASES": json.dumps({f"safe-{name}": {"models": [name, "healthy/tiny"]} for name in models}),
            "AI_LAB_REQUEST_TIMEOUT_SECONDS": str(timeout_seconds),
        }
        async with _served(data_dir, urls, settings) as server:
            await _ask_once(server.url, "healthy/tiny", *_WAYS[0])  # what is imported with the first request
            for fault in faults:
                asking = [
                    _ask_once(server.url, _name(fault, number), *_WAYS[number % len(_WAYS)])
                    for number in range(_VARIANTS)
                ]
                # The huge ones one after the other: all at once they would keep the fake itself busy for too long.
                got = [await one for one in asking] if fault == "huge_line" else await asyncio.gather(*asking)
                for number, outcome in enumerate(got):
                    _judge(fault, number, outcome, timeout_seconds, figures)
            await _compare_costs(server.url, faulty, healthy, figures)


def _model(fault: str, number: int) -> str:
    """Return a model of its own for each request, so that no breaker knows of the others."""
    if fault in UNREACHABLE:
        return f"{fault}/tiny-{number}"
    return f"faulty/{fault}:{number + 1}" if number else f"faulty/{fault}"


def _name(fault: str, number: int) -> str:
    """Return what is asked for; the second half has a healthy model behind it."""
    return ("safe-" if number >= len(_WAYS) else "") + _model(fault, number)


def _judge(fault: str, number: int, outcome: Outcome, timeout_seconds: float, figures: Figures) -> None:
    """Compare what a client got with what must come."""
    path, is_stream = _WAYS[number % len(_WAYS)]
    way = f"{path}{' streamed' * is_stream}"
    figures.requests += 1
    if outcome.seconds > figures.slowest.seconds:
        figures.slowest = outcome
    has_time = timeout_seconds < _DEADLINE_SECONDS  # for another model
    passes_on = number >= len(_WAYS) and fault not in NOT_PASSED_ON and has_time
    if fault in HARMLESS or passes_on:
        code, texts = None, {ANSWER}
    else:
        code = ERRORS[fault][0] if has_time else "deadline_exceeded"
        # A whole answer is a whole one or none; of a stream that broke, what came before.
        whole = ANSWER if fault == "no_end" else ANSWER[: ANSWER.index(" 東京")]
        texts = {whole if fault in LATE and way.endswith("streamed") else ""}
    text = outcome.text
    if fault == "endless" and way.endswith("streamed"):
        text = "" if text and not text.replace("more ", "") else f"not only 'more': {text[:40]}"
        texts = {""}
    what = f"{fault} by {way}{' with a second model' * (number >= len(_WAYS))}"
    if outcome.code != code:
        figures.wrong.append(f"{what}: {outcome.code or 'an answer'} instead of {code or 'an answer'}")
    if text not in texts:
        figures.wrong.append(f"{what}: text {text[:60]!r}")
    if not outcome.is_well_formed:
        figures.wrong.append(f"{what}: its end is missing or doubled")
    if outcome.seconds > _DEADLINE_SECONDS * (1 + _LATE_SHARE):
        figures.wrong.append(f"{what}: {outcome.seconds:.2f} s")
    if code == "deadline_exceeded" and outcome.seconds < _DEADLINE_SECONDS * (1 - _LATE_SHARE):
        figures.wrong.append(f"{what}: given up after {outcome.seconds:.2f} s")


async def _compare_costs(url: str, faulty: FaultyProvider, healthy: FaultyProvider, figures: Figures) -> None:
    """Compare the attempts and dollars in the books with what the services were asked."""
    async with Connection(url) as http:
        summary = (await http.request("GET", "/costs/summary?group_by=model")).json()
    asked = {"healthy/tiny": healthy.asked["tiny"]}
    asked |= {f"faulty/{model}": times for model, times in faulty.asked.items()}
    groups = {key: group for group in summary["groups"] if (key := group["key"]) in asked}
    differing = [key for key in asked if key not in groups or groups[key]["attempts"] != asked[key]]
    # What ends in an error has no price that a fake could tell.
    whole = [key for key in asked if key == "healthy/tiny" or key.split("/")[1].partition(":")[0] in HARMLESS]
    due = {key: COST_USD * asked[key] for key in whole}
    paid = {key: groups[key]["cost_usd"] or 0.0 for key in whole if key in groups}
    unequal = {
        key: paid.get(key, 0.0) - due[key] for key in whole if abs(paid.get(key, 0.0) - due[key]) > _ROUNDING_USD
    }
    figures.books.append((len(differing), sum(abs(one) for one in unequal.values())))
    figures.wrong += [
        f"books: {key} has {groups.get(key, {}).get('attempts')} attempts of {asked[key]}" for key in differing
    ]
    figures.wrong += [f"books: {key} has {one:+.9f} USD" for key, one in unequal.items()]


# -- many clients ------------------------------------------------------------------------------------------------------


async def _dead(url: str, fake: FaultyProvider, clients: int, figures: Figures) -> None:
    fake.fault = "error_500"
    got = await asyncio.gather(*(_ask_once(url, "dead/tiny", *_WAYS[number % 4]) for number in range(clients)))
    figures.dead = Counter(one.code or "an answer" for one in got)
    figures.dead_asked = fake.asked["tiny"]


async def _shaky(url: str, fake: FaultyProvider, chats: int, figures: Figures) -> None:
    fake.failing = _FAILING_SHARE
    waiting = iter(range(chats))

    async def client() -> None:
        async with Connection(url) as http:
            for number in waiting:
                outcome = await _ask(http, "either", *_WAYS[number % len(_WAYS)])
                is_whole = outcome.text == ANSWER and outcome.is_well_formed
                figures.shaky[outcome.code or ("an answer" if is_whole else "another text")] += 1

    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    figures.shaky_failed = fake.failed


async def _spend(url: str, fake: FaultyProvider, spenders: int, figures: Figures) -> None:
    hard_usd = COST_USD * _HARD_ANSWERS
    budget = {"name": "hard", "period": "month", "service": "paid", "hard_usd": round(hard_usd, 9)}
    codes: Counter[str] = Counter()

    async def client(number: int) -> None:
        async with Connection(url) as http:
            outcome = Outcome()
            while outcome.code is None:
                outcome = await _ask(http, "paid/tiny", *_WAYS[number % len(_WAYS)])
                codes[outcome.code or "an answer"] += 1

    async with Connection(url) as http:
        made = await http.request("POST", "/budgets", budget)
        assert made.status == 201, made.body
        await asyncio.gather(*(client(number) for number in range(spenders)))
        shown = (await http.request("GET", f"/budgets/{made.json()['id']}")).json()
        summary = (await http.request("GET", "/costs/summary?group_by=service")).json()
    booked = next(group for group in summary["groups"] if group["key"] == "paid")
    figures.budget = {
        "beyond": fake.asked["tiny"] - _HARD_ANSWERS,
        "other errors": sum(codes.values()) - codes["an answer"] - codes["budget_exceeded"],
        "uncounted": abs(fake.asked["tiny"] - booked["attempts"]) + abs(fake.asked["tiny"] - codes["an answer"]),
        "differing": max(abs(one - fake.asked["tiny"] * COST_USD) for one in (shown["used_usd"], booked["cost_usd"])),
    }


# -- one request -------------------------------------------------------------------------------------------------------


async def _ask_once(url: str, model: str, path: str, is_stream: bool) -> Outcome:
    async with Connection(url) as http:
        return await _ask(http, model, path, is_stream)


async def _ask(http: Connection, model: str, path: str, is_stream: bool) -> Outcome:
    """Ask by one of the ways; an answer that never ends counts as an error of its own."""
    body: dict[str, Any] = {"model": model, "stream": is_stream}
    body |= {"message": "hi"} if path == "/chat" else {"messages": [{"role": "user", "content": "hi"}]}
    started = time.perf_counter()
    try:
        async with asyncio.timeout(5 * _DEADLINE_SECONDS):
            outcome = await (_streamed(http, path, body) if is_stream else _whole(http, path, body))
    except (TimeoutError, ConnectionError) as error:
        http.close()
        outcome = Outcome(code=type(error).__name__)
    outcome.seconds = time.perf_counter() - started
    return outcome


async def _whole(http: Connection, path: str, body: dict[str, Any]) -> Outcome:
    reply = await http.request("POST", path, body)
    answer = reply.json()
    if reply.status != 200:
        return Outcome(code=_code(answer))
    return Outcome(answer["response"] if path == "/chat" else answer["choices"][0]["message"]["content"])


async def _streamed(http: Connection, path: str, body: dict[str, Any]) -> Outcome:
    outcome, ends, done = Outcome(), 0, None
    async for event in http.stream(path, body):
        if event.name == "status":  # it failed before the stream began
            return Outcome(code=_code(json.loads(event.data["body"])))
        if event.data == "[DONE]" or event.name == "message.done":
            ends += 1
            done = event.data
        elif event.name == "error" or "error" in event.data:
            ends += path == "/chat"  # /v1 ends with [DONE] in any case
            outcome.code = _code(event.data)
        elif event.name == "message.delta":
            outcome.text += event.data.get("delta", "")
        elif event.data.get("choices") and path != "/chat":
            outcome.text += event.data["choices"][0]["delta"].get("content") or ""
    is_same = not isinstance(done, dict) or done["response"] == outcome.text
    outcome.is_well_formed = is_same and (ends == 1 or (ends == 0 and outcome.code is not None))
    return outcome


def _code(problem: dict[str, Any]) -> str:
    error = problem.get("error", problem)
    return str(error["code"])


# -- what came out -----------------------------------------------------------------------------------------------------


def _rows(figures: Figures, options: argparse.Namespace) -> list[Row]:
    errors = options.chats - figures.shaky["an answer"]
    whole = figures.dead["an answer"]
    beyond = figures.budget["beyond"]
    return [
        Row("faults", f"{len(FAULTS) + len(UNREACHABLE) - len(HARMLESS)}, and {len(HARMLESS)} that look like one"),
        none_of(f"wrong, of {figures.requests} requests", len(figures.wrong)),
        at_most("the slowest", figures.slowest.seconds, _DEADLINE_SECONDS * (1 + _LATE_SHARE), "s", 2),
        none_of("models with other attempts in the books than were made", sum(count for count, _ in figures.books)),
        at_most("dollars paid twice or not at all", sum(one for _, one in figures.books), _ROUNDING_USD, "USD", 9),
        at_most(
            f"requests to a dead service of {options.clients} clients", figures.dead_asked, _asked_at_most(), "", 0
        ),
        none_of("answers of the dead service", whole),
        Row("what its clients got", _listed(figures.dead)),
        at_most("errors seen while one of two services fails", 100 * errors / options.chats, _ERROR_PERCENT, "%", 3),
        Row("its failures", f"{figures.shaky_failed} in {options.chats} chats: {_listed(figures.shaky)}"),
        Row(
            "answers beyond a hard limit", f"{beyond:.0f}", f"0 to {options.spenders}", 0 <= beyond <= options.spenders
        ),
        none_of("answers there that are not counted, or twice", int(figures.budget["uncounted"])),
        none_of("other errors there than budget_exceeded", int(figures.budget["other errors"])),
        at_most("dollars there that are not those in the books", figures.budget["differing"], _ROUNDING_USD, "USD", 9),
    ]


def _asked_at_most() -> float:
    return _FAILURES - 1 + _PLACES


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{times} {what}" for what, times in counted.most_common())


def _notes(figures: Figures, options: argparse.Namespace) -> list[str]:
    return [
        f"Time for an answer {_DEADLINE_SECONDS:g} s; {_ATTEMPTS} attempts. Each fault is asked for {_VARIANTS} times",
        "at once: /chat and /v1, whole and streamed, alone and with a healthy model behind it. Who is silent is given",
        f"up after {_SHORT_TIMEOUT_SECONDS:g} s in round 1, and when the time for the answer is over in round 2.",
        f"Dead: all requests end in HTTP 500; a breaker of {_FAILURES} failures, {_PLACES} places.",
        f"{_FAILING_SHARE:.0%} of the requests to the first of two services fail; {_AT_ONCE} clients.",
        f"Budget: {options.spenders} clients ask until they are refused; it has money for {_HARD_ANSWERS} answers.",
        *[f"wrong: {one}" for one in figures.wrong[:20]],
    ]


if __name__ == "__main__":
    sys.exit(main())
