"""An answer as a plain socket receives it, byte by byte: the least client there can be."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.calibrated_server import CalibratedServer


class Raw:
    """What came over a socket: all bytes, and how the connection was after them."""

    def __init__(self, server: CalibratedServer, path: str, body: dict[str, Any], *, wait_seconds: float = 5) -> None:
        payload = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(payload)}\r\n\r\n"
        address = urlsplit(server.url)
        assert address.port
        self.received, self.ending = b"", "kept"
        with socket.create_connection(("127.0.0.1", address.port), timeout=wait_seconds) as connection:
            connection.sendall(head.encode() + payload)
            try:
                while not self._is_complete():
                    if not (data := connection.recv(65536)):
                        self.ending = "closed"
                        break
                    self.received += data
            except TimeoutError:
                self.ending = "silent"
            except ConnectionResetError:
                self.ending = "reset"

    def _is_complete(self) -> bool:
        head, _, rest = self.received.partition(b"\r\n\r\n")
        length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
        return len(rest) == int(length) if length else self.received.endswith(b"\r\n0\r\n\r\n")

    @property
    def status(self) -> int:
        return int(self.received.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        rest, body = self.received.partition(b"\r\n\r\n")[2], b""
        while rest and (size := int(rest.partition(b"\r\n")[0], 16)):
            rest = rest.partition(b"\r\n")[2]
            body, rest = body + rest[:size], rest[size + 2 :]
        return body

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]

    def events(self) -> list[dict[str, Any]]:
        found = [line[6:] for line in self.body.splitlines() if line.startswith(b"data: ")]
        assert found[-1] == b"[DONE]"
        return [json.loads(event) for event in found[:-1]]
