"""Use a server in a network of its own, where nothing but loopback is; run as a program below ``unshare --net``.

Prints a JSON of what was seen. ``strays`` counts packets that any process tried to send elsewhere, as the kernel does
in this network: such a packet finds no route. Names are looked up over UDP, so datagrams count as well.
"""

from __future__ import annotations

import fcntl
import json
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from tests.server import ServerProcess

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_FAR = {"far": "http://192.0.2.1/v1", "named": "http://models.example/v1"}
_REFERENCE = re.compile(
    r"""(?:src|href)=["']([^"']+)["']|url\(["']?([^"')]+)|@import\s+["']([^"']+)|url:\s*'([^']+)'"""
)


def main(folder: Path) -> None:
    """Use one server that knows nothing outside, and one that was told of providers elsewhere."""
    _start_loopback()
    seen: dict[str, Any] = {}
    with ServerProcess(folder / "data") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        seen["docs"] = _visit_docs(client)
        answer = client.post("/chat", json={"message": "Say hello.", "options": {"max_tokens": 8}}).json()
        seen["answer"], seen["provider"] = answer.get("response"), answer.get("provider")
        paths = ("/", "/health", "/health/detailed", "/v1/models", "/conversations", "/openapi.json")
        seen["statuses"] = {path: client.get(path).status_code for path in paths}
        seen["exit_code"] = server.stop()
    seen["strays"] = _strays()
    with ServerProcess(folder / "far", {"AI_LAB_SERVERS": json.dumps(_FAR)}) as server:
        httpx.get(f"{server.url}/v1/models", timeout=60)
    seen["strays_to_configured"] = _strays() - seen["strays"]
    json.dump(seen, sys.stdout)


def _visit_docs(client: httpx.Client) -> dict[str, int | str]:
    """Return the status of every file that the page asks for, or ``elsewhere`` for one on another host."""
    found: dict[str, int | str] = {}
    pages = ["/docs"]
    while pages:
        page = pages.pop()
        reply = client.get(page)
        found[page] = reply.status_code
        if not reply.headers.get("content-type", "").startswith(("text/html", "text/css")):
            continue
        for reference in {group for match in _REFERENCE.findall(reply.text) for group in match if group}:
            target = urljoin(page, reference)
            if reference.startswith(("data:", "#")):
                continue
            if urlsplit(target).netloc:
                found[reference] = "elsewhere"
            elif target not in found and target not in pages:
                pages.append(target)
    return found


def _strays() -> int:
    old = Path("/proc/net/snmp").read_text(encoding="ascii").splitlines()
    counters: dict[str, int] = {}
    for names, values in zip(old[::2], old[1::2], strict=True):
        kind = names.split()[0]
        counters |= {
            f"{kind}{name}": int(value) for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
        }
    new = dict(line.split() for line in Path("/proc/net/snmp6").read_text(encoding="ascii").splitlines())
    return (
        counters["Ip:OutNoRoutes"]
        + counters["Udp:OutDatagrams"]
        + int(new["Ip6OutNoRoutes"])
        + int(new["Udp6OutDatagrams"])
    )


def _start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
