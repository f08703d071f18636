"""Time the vault: the use of a secret, the list of 1,000 keys, and chats while all secrets move to a new data key.

Run: python scripts/measure_vault.py [--keys 1000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import random
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from cryptography.fernet import Fernet
from pydantic import SecretStr

from ai_lab.providers.known_services import known_services
from ai_lab.settings import Settings
from ai_lab.vault.alone import opened_vault
from ai_lab.vault.schemas import NewKey
from ai_lab.vault.service import Vault
from scripts.measurement import Row, at_most, interval, none_of, percentile, report
from tests.connection import Connection
from tests.server import ServerProcess

_USE_MS, _LIST_MS, _SLOWER_PERCENT = 0.1, 20.0, 20.0
_USES, _BLOCKS = 400, 40
_LISTS = 60
_CLIENTS, _THINK_SECONDS = 4, 0.03
_FIRST_WINDOW_SECONDS, _LOOK_SECONDS = 10.0, 0.25
_WARM_SECONDS = 2.0


@dataclass
class Figures:
    """What was measured, in milliseconds where nothing else is said; chats by round."""

    use: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    keys: list[float] = field(default_factory=list)
    route: list[float] = field(default_factory=list)
    quiet: list[list[float]] = field(default_factory=list)
    rotating: list[list[float]] = field(default_factory=list)
    rotation_seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        data_dir, config_dir = Path(folder) / "data", Path(folder) / "config"
        data_dir.mkdir(mode=0o700)
        asyncio.run(_in_process(Settings.load(data_dir=data_dir, config_dir=config_dir), options.keys, figures))
        settings = {"AI_LAB_CONFIG_DIR": str(config_dir), "AI_LAB_RATE_LIMITS": "false"}
        with ServerProcess(data_dir, settings) as server:
            asyncio.run(_over_http(server.url, options.rounds, figures))
    return report(f"The vault with {options.keys} keys", _rows(figures), _notes(figures, options.rounds))


# -- in this process ---------------------------------------------------------------------------------------------------


async def _in_process(settings: Settings, count: int, figures: Figures) -> None:
    async with opened_vault(settings) as vault:
        await _fill(vault, count)
        url = known_services()["openai"].base_url or ""
        secret = await vault.secret_for("openai", url)
        assert secret
        fernet = Fernet(base64.urlsafe_b64encode(os.urandom(32)))
        token = fernet.encrypt(secret.encode().ljust(128))
        for _ in range(_BLOCKS):
            for _ in range(_USES):
                started = time.perf_counter()
                await vault.secret_for("openai", url)
                figures.use.append((time.perf_counter() - started) * 1000)
            for _ in range(_USES):
                started = time.perf_counter()
                fernet.decrypt(token)
                figures.plain.append((time.perf_counter() - started) * 1000)
        for _ in range(_LISTS):
            started = time.perf_counter()
            listed = await vault.keys()
            figures.keys.append((time.perf_counter() - started) * 1000)
            assert len(listed) >= count


async def _fill(vault: Vault, count: int) -> None:
    names = [name for name, service in known_services().items() if service.base_url and service.needs_key]
    names.insert(0, names.pop(names.index("openai")))
    for number in range(count):
        name, label = names[number % len(names)], f"key {number // len(names)}"
        new = NewKey(service_name=name, api_key=SecretStr(secrets.token_hex(32)), label=label, force=True)
        await vault.add(new, actor="measure")


# -- over HTTP ---------------------------------------------------------------------------------------------------------


async def _over_http(url: str, rounds: int, figures: Figures) -> None:
    async with Connection(url) as connection:
        for _ in range(_LISTS):
            started = time.perf_counter()
            reply = await connection.request("GET", "/api-keys")
            figures.route.append((time.perf_counter() - started) * 1000)
            assert reply.status == 200, reply.body
        await _quiet(url, connection, _WARM_SECONDS, figures)
        window = _FIRST_WINDOW_SECONDS
        for number in range(rounds):
            if number % 2 == 0:
                figures.quiet.append(await _quiet(url, connection, window, figures))
            figures.rotating.append(await _rotating(url, connection, figures))
            window = figures.rotation_seconds[-1]
            if number % 2:
                figures.quiet.append(await _quiet(url, connection, window, figures))


async def _quiet(url: str, connection: Connection, seconds: float, figures: Figures) -> list[float]:
    """Return latencies of chats while nothing else goes on but looks at the last rotation, as during one."""
    until = time.perf_counter() + seconds

    async def look() -> None:
        while time.perf_counter() < until:
            await connection.request("GET", "/api-keys/rotation")
            await asyncio.sleep(_LOOK_SECONDS)

    return await _chats_while(url, look(), figures)


async def _rotating(url: str, connection: Connection, figures: Figures) -> list[float]:
    """Return latencies of chats from the start of a rotation to its end."""

    async def rotate() -> None:
        started = time.perf_counter()
        reply = await connection.request("POST", "/api-keys/rotate")
        assert reply.status == 202, reply.body
        rotated = reply.json()
        while rotated["status"] == "running":
            await asyncio.sleep(_LOOK_SECONDS)
            rotated = (await connection.request("GET", "/api-keys/rotation")).json()
        figures.rotation_seconds.append(time.perf_counter() - started)
        if rotated["done"] != rotated["total"] or rotated["unreadable"]:
            figures.errors.append(f"rotation: {rotated}")

    return await _chats_while(url, rotate(), figures)


async def _chats_while(url: str, meanwhile: object, figures: Figures) -> list[float]:
    assert asyncio.iscoroutine(meanwhile)
    doing = asyncio.create_task(meanwhile)
    latencies: list[float] = []
    await asyncio.gather(doing, *(_chat(url, doing, latencies, figures.errors) for _ in range(_CLIENTS)))
    return latencies


async def _chat(url: str, doing: asyncio.Task[None], latencies: list[float], errors: list[str]) -> None:
    """Ask ``echo`` again and again, each time in a new conversation, so that none grows long."""
    async with Connection(url) as connection:
        while not doing.done():
            started = time.perf_counter()
            reply = await connection.request("POST", "/chat", {"message": "A word or two.", "model": "echo/echo"})
            latencies.append((time.perf_counter() - started) * 1000)
            if reply.status != 200:
                errors.append(f"/chat: {reply.status} {reply.body.decode()}")
            await asyncio.sleep(_THINK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret


# -- what came out -----------------------------------------------------------------------------------------------------


def _rows(figures: Figures) -> list[Row]:
    def slower(rounds: list[int] | range) -> float:
        rotating = [latency for number in rounds for latency in figures.rotating[number]]
        quiet = [latency for number in rounds for latency in figures.quiet[number]]
        return (percentile(rotating, 0.99) / percentile(quiet, 0.99) - 1) * 100

    count = len(figures.rotating)
    all_of_them = slower(range(count))
    low, high = interval(count, lambda drawn: slower(list(drawn)))
    return [
        at_most("use of a secret, median", median(figures.use), _USE_MS, "ms", 4),
        Row("use of a secret", _spread(figures.use)),
        Row("Fernet alone, as many bytes", _spread(figures.plain)),
        at_most("Vault.keys(), median", median(figures.keys), _LIST_MS, "ms", 2),
        at_most("GET /api-keys, median", median(figures.route), _LIST_MS, "ms", 2),
        Row("chats without a rotation", _spread([one for each in figures.quiet for one in each])),
        Row("chats during a rotation", _spread([one for each in figures.rotating for one in each])),
        Row(
            "p99 of chats during a rotation, above that without",
            f"{all_of_them:+.1f} % ({low:+.1f} to {high:+.1f})",
            f"<= +{_SLOWER_PERCENT:g} %",
            all_of_them <= _SLOWER_PERCENT,
        ),
        Row("rotation", f"{min(figures.rotation_seconds):.1f} to {max(figures.rotation_seconds):.1f} s"),
        none_of("errors", len(figures.errors)),
    ]


def _spread(values: list[float]) -> str:
    shares = ", ".join(f"p{share * 100:g} {percentile(values, share):.3f}" for share in (0.5, 0.9, 0.99))
    return f"{shares}, max {max(values):.3f} ms; n = {len(values)}"


def _notes(figures: Figures, rounds: int) -> list[str]:
    return [
        f"Uses and plain decryptions take turns, {_USES} at a time. A use reads nothing but one number, once a second,",
        "and writes the audit once a minute.",
        f"{rounds} rounds, each a window with a rotation and one of equal length without, in turns first and second:",
        f"{_CLIENTS} clients ask echo in new conversations and pause {_THINK_SECONDS * 1000:g} ms on average.",
        "In brackets: the 95 % bootstrap interval over rounds.",
        *[error[:200] for error in figures.errors[:5]],
    ]


if __name__ == "__main__":
    sys.exit(main())
