"""``ai-lab keys``: what its commands do; the exit codes are those of ``keys_command.py``."""

from __future__ import annotations

import asyncio
import getpass
import sys
import warnings

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ai_lab.cli.door import say
from ai_lab.cli.figures import plain
from ai_lab.cli.keys_door import FINDINGS, FINE, WRONG, Keys, OwnKeys, ended, opened_keys
from ai_lab.cli.keys_screen import draw_keys, draw_test, name_of, remedies, wide_console
from ai_lab.errors import ApiKeyNotFound, InvalidRequest, LabError
from ai_lab.vault.schemas import DEFAULT_LABEL, KeyInfo, Rotation

_LONGEST_INPUT = 16 * 1024
_LOOK_SECONDS = 0.2
_LONGEST_SERVICE_NAME = 20


def add_key(
    service: str,
    *,
    label: str,
    base_url: str | None,
    force: bool,
    is_tested: bool,
    from_stdin: bool,
    surplus: list[str] | None,
    url: str | None,
) -> int:
    """Store a key that is asked for, and say whether it works."""
    if surplus or _looks_like_key(service):
        say(
            "error: A key is never taken from the command line, where the shell's history and other users see it; if "
            "this was one, replace it at its service. Give it at the prompt: ai-lab keys add SERVICE"
        )
        return WRONG
    try:
        key = _read_line() if from_stdin else _ask_for_key(service)
    except InvalidRequest as error:
        say(f"error: {error.detail}")
        return WRONG

    async def work() -> int:
        async with opened_keys(url) as keys:
            answer = await keys.add(service, key, label=label, base_url=base_url, force=force)
            for warning in answer.warnings:
                say(f"warning: {plain(warning)}")
            print(plain(answer.message))  # noqa: T201 - a command speaks to its terminal
            if answer.key and answer.key.base_url:
                say(f"It is used at {plain(answer.key.base_url)} and goes nowhere else.")
            if not is_tested:
                return FINE
            return await _test(keys, answer.service_name, answer.key.label if answer.key else label)

    return ended(work, url=url)


def list_keys(*, as_json: bool, with_revoked: bool, url: str | None) -> int:
    """Print the keys."""

    async def work() -> int:
        async with opened_keys(url) as keys:
            listed = await keys.list(with_revoked=with_revoked)
        if as_json:
            sys.stdout.write(listed.model_dump_json(indent=2) + "\n")
            return FINE
        if listed.keys:
            wide_console().print(draw_keys(listed.keys))
            for line in remedies(listed.keys):
                say(line)
        else:
            say("There is no key yet. Store one: ai-lab keys add openai")
        if listed.vault.state == "sealed":
            say(f"The vault is sealed: {listed.vault.reason} {listed.vault.remedy}")
        return FINE

    return ended(work, url=url)


def test_keys(service: str | None, *, label: str | None, is_all: bool, url: str | None) -> int:
    """Test one key, all of a service, or all; the code says whether each of them works."""

    async def work() -> int:
        async with opened_keys(url) as keys:
            if service and not is_all:
                return await _test(keys, service, label)
            listed = (await keys.list()).keys
            chosen = [key for key in listed if service is None or key.service_name == service.strip().lower()]
            if not chosen:
                say("There is no key to test. Store one: ai-lab keys add openai")
                return WRONG
            codes = [await _tested(keys, key) for key in chosen]
            return max(codes)

    return ended(work, url=url)


def rotate_keys(*, is_awaited: bool, url: str | None) -> int:
    """Move all secrets to a new data key."""

    async def work() -> int:
        async with opened_keys(url) as keys:
            rotation = await keys.rotate()
            # What this process has begun it also ends: no server is there to go on with it.
            if is_awaited or isinstance(keys, OwnKeys):
                rotation = await _followed(keys, rotation)
        print(_told(rotation))  # noqa: T201 - a command speaks to its terminal
        return FINDINGS if rotation.unreadable else FINE

    return ended(work, url=url)


def remove_key(service: str, *, label: str | None, is_sure: bool, url: str | None) -> int:
    """Erase a key after asking."""
    if not is_sure:
        if not sys.stdin.isatty():
            say("error: Nobody is there to ask. Say that you are sure: --yes")
            return WRONG
        print(f"Erase the key {name_of(service, label)}? [y/N] ", end="", flush=True)  # noqa: T201 - as above
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            say("Nothing was changed.")
            return FINE

    async def work() -> int:
        async with opened_keys(url) as keys:
            try:
                answer = await keys.remove(service, label=label)
            except ApiKeyNotFound as error:
                names = [str(key.environment_name) for key in await _others(keys, service) if key.environment_name]
                held = f" {' and '.join(names)} in the environment or .env is used: take it out there." if names else ""
                say(f"error: {plain(error.detail + held)}")
                return WRONG
            others = await _others(keys, answer.service_name)
        print(plain(answer.message))  # noqa: T201 - as above
        if others:
            used = next((key for key in others if key.label == DEFAULT_LABEL), others[0])
            say(f"{plain(answer.service_name)} is called with its key {plain(used.label)!r} now.")
        return FINE

    return ended(work, url=url)


async def _others(keys: Keys, service: str) -> list[KeyInfo]:
    """Return the keys that a service has, stored ones first."""
    return [key for key in (await keys.list()).keys if key.service_name == service.strip().lower()]


def _looks_like_key(name: str) -> bool:
    """Return whether somebody wrote a key where a service belongs."""
    return len(name) > _LONGEST_SERVICE_NAME and any(sign.isdigit() for sign in name)


def _ask_for_key(service: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidRequest("There is no terminal to ask at. Pipe the key in: ai-lab keys add SERVICE --stdin")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"API key for {plain(service)} (it will not be shown): ")
    except getpass.GetPassWarning:
        raise InvalidRequest("This terminal would show the key. Pipe it in: ai-lab keys add SERVICE --stdin") from None
    except EOFError:
        raise InvalidRequest("No key was given.") from None


def _read_line() -> str:
    line = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
    if len(line) > _LONGEST_INPUT:
        raise InvalidRequest("What came in is far too long for a key.")
    try:
        return line.decode().strip()
    except UnicodeDecodeError:
        raise InvalidRequest("What came in is no text.") from None


async def _test(keys: Keys, service: str, label: str | None) -> int:
    answer = await keys.test(service, label=label)
    console = Console(highlight=False)
    console.print(draw_test(answer), soft_wrap=True)
    return FINE if answer.success else FINDINGS


async def _tested(keys: Keys, key: KeyInfo) -> int:
    """Test one of several: what is wrong with it does not keep the others from being tested."""
    try:
        return await _test(keys, key.service_name, key.label)
    except LabError as error:
        say(f"{name_of(key.service_name, key.label)}: {plain(error.detail)}")
        return FINDINGS


async def _followed(keys: Keys, rotation: Rotation) -> Rotation:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Moving keys", total=rotation.total)
        while rotation.status == "running":
            progress.update(task, completed=rotation.done, total=rotation.total)
            await asyncio.sleep(_LOOK_SECONDS)
            rotation = await keys.rotation() or rotation
    return rotation


def _told(rotation: Rotation) -> str:
    if rotation.status == "running":
        return f"Data key {rotation.to_data_key}: {rotation.done} of {rotation.total} keys have moved; it goes on."
    unreadable = f" {rotation.unreadable} could not be read before either." if rotation.unreadable else ""
    return f"Data key {rotation.to_data_key}: all {rotation.done} keys have moved.{unreadable}"
