"""What clients send becomes no metric: neither does the number of series grow with it, nor does it stand in one."""

import asyncio
import secrets
from collections.abc import Iterable

import httpx

from tests.server import ServerProcess

_METHODS = ("PURGE", "REPORT", "DELETE", "OPTIONS")
#: A kind of answer or a duration that did not occur before may have a series of its own.
_MORE_KINDS = 60


async def test_invented_names_make_no_series(attacked: ServerProcess, *, thorough: bool) -> None:
    mark = f"invented{secrets.token_hex(4)}"
    async with httpx.AsyncClient(base_url=attacked.url, timeout=60) as http:
        turn = asyncio.Semaphore(16)

        async def ask(number: int) -> None:
            name = f"{mark}-{number}"
            async with turn:
                match number % 5:
                    case 0:
                        await http.post("/chat", json={"message": name, "model": f"{name}/{name}"})
                    case 1:
                        body = {"model": f"echo/{name}", "messages": [{"role": "user", "content": name}]}
                        await http.post("/v1/chat/completions", json=body, headers={"x-api-key": name})
                    case 2:
                        await http.get(f"/conversations/{name}", headers={"user-agent": name, "x-request-id": name})
                    case 3:
                        await http.request(_METHODS[number // 5 % 4], f"/{name}?key={name}")
                    case _:
                        await http.post(f"/api-keys/{name}/test")

        async def series_after(numbers: Iterable[int]) -> int:
            await asyncio.gather(*map(ask, numbers))
            text = (await http.get("/metrics/prometheus")).text
            assert mark not in text.lower()
            return len(text.splitlines())

        first = await series_after(range(40))
        assert await series_after(range(40, 1000 if thorough else 300)) - first < _MORE_KINDS
