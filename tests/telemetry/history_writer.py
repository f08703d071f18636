"""A process that writes a history as fast as it can until it is killed.

Its arguments: the URL, and the second since 1970 that the history begins with.
After each batch that is safe it prints the second up to which everything is.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.telemetry.history.service import History
from tests.telemetry.recorded import CPU, RETENTION, ROOT

BATCH = 6


async def write(url: str, second: int) -> None:
    """Write from ``second`` on; value = second, so that every sample can be told from all others."""
    history = History(Database(make_url(url)), host="here", retention=RETENTION)
    while True:
        for _ in range(BATCH):
            second += 5
            history.add(_moment(second), {CPU: float(second), ROOT: -float(second)})
        await history.flush()
        sys.stdout.write(f"{second}\n")
        sys.stdout.flush()
        await history.roll_up(_moment(second))


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2])))
