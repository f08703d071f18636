"""A Sentry server that takes reports and shows what is in them."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply


class FakeSentry(FakeServer):
    """Use as ``async with``; ``dsn`` is what SENTRY_DSN is set to."""

    public_key = "CANARYpublickey"

    @property
    def dsn(self) -> str:
        return self.origin.replace("://", f"://{self.public_key}@") + "/7"

    def default_reply(self, request: ReceivedRequest) -> Reply:
        return json_reply({})

    @staticmethod
    def content(request: ReceivedRequest) -> str:
        """Return what was sent, as text."""
        packed = request.headers.get("content-encoding") == "gzip"
        return (gzip.decompress(request.body) if packed else request.body).decode()

    def events(self) -> list[dict[str, Any]]:
        """Return the events of all reports: in an envelope each has a line with its type before it."""
        events = []
        for request in self.requests:
            lines = self.content(request).splitlines()
            for header, item in itertools.pairwise(lines):
                if json.loads(header).get("type") == "event":
                    events.append(json.loads(item))
        return events
