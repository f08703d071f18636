"""Where the server is looked for, and what to say where none answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ai_lab.database.address import database_address
from ai_lab.errors import AnswerLost, Forbidden, LabError, RateLimited, ServerUnreachable, Unauthorized
from ai_lab.settings import Settings, check_base_url

_SERVER_ERRORS = 500
_START = "Start it with ./start.sh, or give the address of one that runs: --url http://host:port"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a server may listen on; compared, not bound


@dataclass(frozen=True)
class Address:
    """An address, and the settings it comes from; None where it was given on the command line."""

    url: str
    settings: Settings | None = None


def find_address(url: str | None) -> Address:
    """Return the address given on the command line, else the one of the settings.

    Raises:
        InvalidSettings: ``url`` is no http address, or a setting cannot be used.
    """
    if url is not None:
        return Address(check_base_url(url if "://" in url else f"http://{url}"))
    settings = Settings.load()
    host = _EVERYWHERE.get(settings.api_host, settings.api_host)
    return Address(f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}", settings)


@dataclass(frozen=True)
class Trouble:
    """Why there is no answer, and the remedy; each one sentence."""

    what: str
    remedy: str


def explain(address: Address, error: LabError) -> Trouble:
    """Return what to tell the person about a server that gives no answer of use."""
    if isinstance(error, AnswerLost):
        what = f"{address.url} took the connection and did not answer."
        return Trouble(what, "The server is overloaded or hangs: its log says more. Then start it anew: ./start.sh")
    if not isinstance(error, ServerUnreachable) and (refusal := _refusal(address, error)):
        return refusal
    is_stranger = not isinstance(error, ServerUnreachable) or isinstance(error.__cause__, ValueError)
    if is_stranger:
        what = f"What answers at {address.url} is not this version of AI Lab."
        return Trouble(what, "Give the address of the right one: --url http://host:port")
    if address.settings is None:
        return Trouble(f"No AI Lab server answers at {address.url} (given by --url).", _START)
    what = f"No AI Lab server answers at {address.url} (from the settings API_HOST and API_PORT)."
    other = _noted_address(address.settings)
    if other and other != address.url:
        return Trouble(what, f"One with your data was started at {other}: try --url {other}")
    return Trouble(what, _START)


def _refusal(address: Address, error: LabError) -> Trouble | None:
    """Return what to say about a server that answered with an error; None where it is not ours."""
    if isinstance(error, Unauthorized):
        what = f"The server at {address.url} wants a token, and we have none or another one."
        return Trouble(what, "Set AI_LAB_TOKEN to its token; on its own machine, ai-lab token says where that is.")
    if isinstance(error, Forbidden | RateLimited):
        return Trouble(f"The server at {address.url} refused: {error.detail}", "Its settings say who may come in.")
    if error.status >= _SERVER_ERRORS:
        what = f"The server at {address.url} answered with an error: {error.detail}"
        return Trouble(what, "Its log has the details.")
    return None


def _noted_address(settings: Settings) -> str | None:
    """Return the address that the server of this SQLite file has noted beside it."""
    database = database_address(settings)
    if database.get_backend_name() != "sqlite":
        return None
    try:
        noted = Path(f"{database.database}.server").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    for everywhere, here in _EVERYWHERE.items():
        noted = noted.replace(f"//{everywhere}:", f"//{here}:")
    return noted
