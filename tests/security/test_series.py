"""What clients send becomes no metric: neither their number grows with it, nor does it stand in one."""

import asyncio
import secrets

import httpx

from tests.server import ServerProcess

_NAMES = 1000
_METHODS = ("PURGE", "REPORT", "DELETE", "OPTIONS")
#: Kinds of answers that were not there before (another status, another route) have series of their own.
_MORE_KINDS = 150


async def test_a_thousand_invented_names_make_no_series(attacked: ServerProcess) -> None:
    mark = f"invented{secrets.token_hex(4)}"
    async with httpx.AsyncClient(base_url=attacked.url, timeout=60) as http:
        before = (await http.get("/metrics/prometheus")).text
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
                        await http.request(_METHODS[number % 4], f"/{name}?key={name}")
                    case _:
                        await http.post(f"/api-keys/{name}/test")

        await asyncio.gather(*(ask(number) for number in range(_NAMES)))
        after = (await http.get("/metrics/prometheus")).text
    assert mark not in after.lower()
    assert len(after.splitlines()) - len(before.splitlines()) < _MORE_KINDS
