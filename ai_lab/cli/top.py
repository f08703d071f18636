"""``ai-lab top``: the live view, or one frame of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ai_lab.cli.address import Address, explain, find_address
from ai_lab.cli.figures import signs_for
from ai_lab.cli.keyboard import Keyboard
from ai_lab.cli.past import look_back
from ai_lab.cli.reading import LIMIT_SECONDS, look
from ai_lab.cli.top_screen import View, draw
from ai_lab.client import AsyncLabClient
from ai_lab.clock import now
from ai_lab.errors import LabError

_RATE_SECONDS = 1.0  # one frame looks twice, so that there are rates
_UNKNOWN_SECONDS = 2.0  # between two looks, as long as the server's own interval is not known
_RETRY_SECONDS = 1.0
_AFTER_SAMPLE_SECONDS = 0.05
_LEAST_SECONDS = 0.2


def show_top(url: str | None, *, interval_seconds: float | None, once: bool) -> int:
    """Watch until the person has seen enough, or print one frame where that is asked for or nobody can watch.

    Returns:
        The exit code: 2 where one frame was asked for and there is no server.

    Raises:
        InvalidSettings: no address can be made of ``url`` or of the settings.
    """
    console = Console(highlight=False)
    watch = _Watch(find_address(url), interval_seconds, console)
    if once or not console.is_terminal or console.is_dumb_terminal:
        return asyncio.run(watch.show_one_frame())
    with contextlib.suppress(KeyboardInterrupt):  # reaches us only where signals have no handlers: on Windows
        try:
            asyncio.run(watch.run())
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The terminal was closed: what it was still to be told goes nowhere, or the interpreter's end would fail.
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, no path
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 0


class _Watch:
    """Looks at a server again and again, and draws what it sees."""

    def __init__(self, address: Address, interval_seconds: float | None, console: Console) -> None:
        self._view = View(address)
        self._trends = self._view.trends
        self._interval_seconds = interval_seconds
        self._console = console
        self._signs = signs_for(console.encoding)
        self._changed = asyncio.Event()
        self._has_ended = False
        self._knows_past = False
        self._last_point = time.monotonic()

    async def show_one_frame(self) -> int:
        async with AsyncLabClient(self._view.address.url, timeout_seconds=LIMIT_SECONDS) as client:
            await self._look(client)
            if self._view.trouble is None:
                await asyncio.sleep(_RATE_SECONDS)
                await self._look(client)
        self._console.print(draw(self._view, self._console.width, None, self._signs), soft_wrap=True)
        return 2 if self._view.trouble else 0

    async def run(self) -> None:
        """Draw until q or a signal ends it; the terminal is given back as it was, whatever happens."""
        live = Live(console=self._console, screen=True, auto_refresh=False, get_renderable=self._frame)
        keyboard = Keyboard(self._typed)
        for number, act in self._signals(live, keyboard).items():
            asyncio.get_running_loop().add_signal_handler(number, act)
        async with AsyncLabClient(self._view.address.url, timeout_seconds=LIMIT_SECONDS) as client:
            with keyboard, live:
                looking = asyncio.create_task(self._keep_looking(client))
                try:
                    while not self._has_ended and not looking.done():
                        live.refresh()
                        await self._something_to_draw()
                    if looking.done():
                        looking.result()  # it never ends but by a fault of ours
                finally:
                    looking.cancel()
                    await asyncio.wait({looking})

    def _frame(self) -> Text:
        width, height = self._console.size
        return draw(self._view, width, height, self._signs)

    async def _something_to_draw(self) -> None:
        """Wait for news; the clock is news once a second."""
        try:
            async with asyncio.timeout(1 - time.time() % 1):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _keep_looking(self, client: AsyncLabClient) -> None:
        while True:
            await self._look(client)
            self._changed.set()
            await asyncio.sleep(self._pause_seconds())

    async def _look(self, client: AsyncLabClient) -> None:
        view = self._view
        try:
            reading = await look(client, with_counters=True)
        except LabError as error:
            if time.monotonic() - self._last_point >= self._cycle_seconds():
                self._trends.add_gap()
                self._last_point = time.monotonic()
            trouble = explain(view.address, error)
            self._view = View(view.address, self._trends, view.reading, trouble, view.lost_at or now())
            return
        self._trends.add(reading)
        self._last_point = time.monotonic()
        self._view = View(view.address, self._trends, reading)
        if reading.metrics and not self._knows_past:
            self._knows_past = True
            self._changed.set()
            self._trends.remember(await look_back(client, reading.metrics))

    def _cycle_seconds(self) -> float:
        """Return the time from one point of a series to the next."""
        metrics = self._view.reading.metrics if self._view.reading else None
        return self._interval_seconds or (metrics.interval_seconds if metrics else _UNKNOWN_SECONDS)

    def _pause_seconds(self) -> float:
        """Return how long to wait: a moment longer than until the server's next sample."""
        if self._view.trouble:
            return min(_RETRY_SECONDS, self._cycle_seconds())
        metrics = self._view.reading.metrics if self._view.reading else None
        if self._interval_seconds or metrics is None:
            return self._cycle_seconds()
        return max(_LEAST_SECONDS, metrics.interval_seconds - metrics.sample_age_seconds + _AFTER_SAMPLE_SECONDS)

    def _signals(self, live: Live, keyboard: Keyboard) -> dict[signal.Signals, Callable[[], None]]:
        if sys.platform == "win32":
            return {}

        def suspend() -> None:
            live.stop()
            keyboard.give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            keyboard.take()
            live.start(refresh=True)

        return {
            signal.SIGINT: self._end,
            signal.SIGTERM: self._end,
            signal.SIGWINCH: self._changed.set,
            signal.SIGTSTP: suspend,
        }

    def _typed(self, keys: bytes | None) -> None:
        if keys is None or b"q" in keys.lower() or b"\x03" in keys:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._changed.set()
