"""The program behind ``main.py``: read settings, see that nothing is in the way, serve, and stop in order."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import json
import logging
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import psutil
import uvicorn
from filelock import FileLock, Timeout

from ai_lab.access import Tokens, is_loopback, tokens_of
from ai_lab.database import database_address
from ai_lab.database.command import main as set_up_database
from ai_lab.database.sqlite_file import make_folder
from ai_lab.errors import AlreadyRunning, StartupError, UnknownHost
from ai_lab.gateway.names import unknown_names
from ai_lab.lab import Lab
from ai_lab.logging import set_up_logging
from ai_lab.settings import Settings, forget_environment_secrets
from ai_lab.telemetry.prometheus.own_process import CountingHandler
from ai_lab.vault.core_dumps import no_core_dumps
from backend.access import Doors
from backend.app import create_app
from backend.connection_limits import ConnectionLimits
from backend.names import check_proxies
from backend.protocol import limited_protocol

_STOP_SECONDS = 10
_SHORT_ANSWER_BYTES = 65536

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop; returns the exit code: 0 after an orderly stop, 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="main.py", description="Start the AI Lab server.")
    parser.add_argument("--host", help="address to listen on (default: API_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: API_PORT, else 8001)")
    parser.add_argument(
        "--require-token", action="store_true", help="want a token on 127.0.0.1 too: AI_LAB_REQUIRE_TOKEN"
    )
    parser.add_argument("--setup", action="store_true", help="create or upgrade the database, then end")
    options = parser.parse_args(arguments)
    if options.setup:
        return set_up_database([])
    try:
        settings = Settings.load(
            api_host=options.host, api_port=options.port, require_token=options.require_token or None
        )
        set_up_logging(settings)
        forget_environment_secrets()
        no_core_dumps()
        with _listen(settings) as listening, _alone(settings), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, listening))
    except StartupError as error:
        print(f"error: {error.detail}", file=sys.stderr)  # noqa: T201 - a program speaks to its terminal
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends open answers in order, and an orderly stop has exit code 0."""

    def __init__(self, config: uvicorn.Config, lab: Lab) -> None:
        super().__init__(config)
        self._lab = lab
        self._closing: asyncio.Future[tuple[None, None, None]] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGINT and SIGTERM; uvicorn would raise them again afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._stop)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._stop))
        yield

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        # Streams end with an error event and their text saved; only then can uvicorn see all connections closed.
        self._closing = asyncio.gather(
            self._lab.chat.close(), self._lab.completions.close(), self._lab.benchmarks.close()
        )


async def _serve(settings: Settings, listening: socket.socket) -> None:
    tokens = tokens_of(settings)
    doors, proxies = Doors.of(settings, tokens), check_proxies(settings)
    async with Lab.open(settings) as lab:
        logging.getLogger().addHandler(CountingHandler(lab.telemetry.instruments.log_message))
        await lab.benchmarks.adopt_orphans()
        config = uvicorn.Config(
            create_app(lab, doors),
            http=limited_protocol(ConnectionLimits(proxies=proxies)),
            ws="none",  # nothing here speaks it
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
            timeout_keep_alive=65,  # longer than clients and proxies do: no request meets a closing one
            server_header=False,
            proxy_headers=bool(proxies),  # uvicorn would believe every program of this machine
            forwarded_allow_ips=proxies,
        )
        server = _Server(config, lab)
        listening.listen(config.backlog)
        announcing = asyncio.create_task(_announce(settings, lab, tokens))
        await server.serve(sockets=[listening])
        announcing.cancel()


async def _announce(settings: Settings, lab: Lab, tokens: Tokens | None) -> None:
    """Say where everything is, once; looking for models must not delay the first request."""
    is_everywhere = settings.api_host in {"0.0.0.0", "::"}  # noqa: S104 - compared
    host = "127.0.0.1" if is_everywhere else settings.api_host
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"
    if tokens:
        _show(tokens, url)
    models = [model.full_name for model in await lab.providers.list_models() if not model.stale]
    for warning in unknown_names(settings, lab.providers):  # now that lists of models are known
        logger.warning("%s", warning)
    elsewhere = f", from elsewhere http://{socket.gethostname()}:{settings.api_port}" if is_everywhere else ""
    lines = (
        f"AI Lab is at    {url}{elsewhere}",
        f"Docs and API    {url}/docs",
        f"Data            {settings.data_path()}  (database: {lab.setup.address})",
        f"Models          {', '.join(models[:8])}{' …' if len(models) > 8 else ''}",  # noqa: PLR2004 - one line
        f"Default model   {await lab.providers.default_model() or 'none: see ' + str(settings.models_path())}",
        "Stop with Ctrl-C.",
    )
    if not is_loopback(settings.api_host) and not settings.trusted_proxies:
        logger.warning(
            "this server listens on %s without TLS: on the way, everybody can read the token and all that is said. "
            "Put a reverse proxy with TLS in front, name it in AI_LAB_TRUSTED_PROXIES, and let nothing else reach the "
            "port",
            settings.api_host,
        )
    if settings.allowed_hosts and not tokens:
        logger.warning(
            "AI_LAB_ALLOWED_HOSTS is set, and nobody needs a token: if a proxy brings other machines here, name it in "
            "AI_LAB_TRUSTED_PROXIES or start with --require-token"
        )
    # 200,000 objects live as long as the server: going through them for garbage would take 90 ms each time.
    gc.freeze()
    print("\n".join(lines), flush=True)  # noqa: T201 - a program speaks to its terminal


def _show(tokens: Tokens, url: str) -> None:
    """Say where the token is; a new one is shown this once."""
    new = tokens.take_new()
    if new:
        print(f"Log in          {url}/#token={new}  (not shown again)")  # noqa: T201 - as above
    print(f"Token           {tokens.place}", flush=True)  # noqa: T201 - as above


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything else is done.

    Raises:
        AlreadyRunning: the port is taken; the text says by whom.
        StartupError: the address cannot be used.
    """
    host, port = settings.api_host, settings.api_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartupError(f"API_HOST {host!r} is no address of this machine ({error.strerror}).") from error
    if sys.platform != "win32":  # there it would let two servers share the port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunning(_who_listens(host, port)) from error
        raise StartupError(
            f"Cannot listen on {host}:{port} ({error.strerror}). Choose another --host or --port."
        ) from error
    return listening


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the SQLite file for this server alone; Postgres serves many.

    Raises:
        AlreadyRunning: another server has it; the text says where that one listens.
        StartupError: the folder cannot be written.
    """
    address = database_address(settings)
    if address.get_backend_name() != "sqlite":
        yield
        return
    make_folder(Path(address.database or "").parent)
    where = Path(f"{address.database}.server")
    lock = FileLock(f"{where}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        url = where.read_text(encoding="utf-8") if where.exists() else "another address"
        raise AlreadyRunning(f"AI Lab already runs with this data, at {url}. Use that one, or stop it first.") from None
    try:
        where.write_text(f"http://{settings.api_host}:{settings.api_port}", encoding="utf-8")
        yield
    finally:
        where.unlink(missing_ok=True)
        lock.release()


def _who_listens(host: str, port: int) -> str:
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    ours = f"AI Lab already runs at {url}. Open that, or choose another port with --port."
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            if json.load(answer).get("name") == "AI Lab":
                return ours
    except urllib.error.HTTPError as refusal:
        with refusal:
            if "AI Lab" in refusal.headers.get("www-authenticate", "") or _is_our_problem(refusal):
                return ours
    except (OSError, ValueError, AttributeError, urllib.error.URLError):
        pass
    return f"Port {port} is taken by {_program_at(port)}. Stop it, or choose another port with --port."


def _is_our_problem(refusal: urllib.error.HTTPError) -> bool:
    """Return whether it is an AI Lab that goes by another name than the address it is asked at."""
    try:
        return bool(json.loads(refusal.read(_SHORT_ANSWER_BYTES)).get("code") == UnknownHost.code)
    except (OSError, ValueError, AttributeError):
        return False


def _program_at(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", None) == port
                and connection.pid
            ):
                process = psutil.Process(connection.pid)
                return f"{process.name()} (process {process.pid})"
    except psutil.Error:
        pass
    return "another program"


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not there on Windows

    return uvloop.Loop
