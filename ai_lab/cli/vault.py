"""``ai-lab vault``: what its commands do; the exit codes are those of ``vault_command.py``."""

from __future__ import annotations

import re
import sys

from rich.console import Console

from ai_lab.cli.door import say
from ai_lab.cli.figures import plain
from ai_lab.cli.keys_door import FINDINGS, FINE, WRONG, ended, opened_keys
from ai_lab.cli.keys_screen import draw_audit, wide_console
from ai_lab.vault.schemas import AuditEntry, AuditVerification, VaultStatus

_PAGE = 100
_HEAD = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}")


def show_vault(*, as_json: bool, url: str | None) -> int:
    """Print whether the vault is open; the code is 1 where it is sealed."""

    async def work() -> int:
        async with opened_keys(url) as keys:
            status = await keys.status()
        if as_json:
            sys.stdout.write(status.model_dump_json(indent=2) + "\n")
        else:
            Console(highlight=False).print("\n".join(_lines(status)), markup=False, soft_wrap=True)
        return FINE if status.state == "open" else FINDINGS

    return ended(work, url=url)


def change_root_key(*, url: str | None) -> int:
    """Give the vault a new root key."""

    async def work() -> int:
        async with opened_keys(url) as keys:
            rekey = await keys.rekey()
        print(f"Root key {plain(rekey.root_key)}, from {plain(rekey.root_key_source)}.")  # noqa: T201 - a command speaks
        say(plain(rekey.message))
        return FINE

    return ended(work, url=url)


def start_vault_anew(*, is_known: bool, url: str | None) -> int:
    """Reset a sealed vault."""
    if not is_known:
        say(
            "error: All stored keys would be lost; labels and hints stay, so that you know what to enter again. Look "
            "for the root key in your backups first: ai-lab vault status names its place. Then: --i-know"
        )
        return WRONG

    async def work() -> int:
        async with opened_keys(url) as keys:
            status = await keys.reset()
        print(f"The vault is {status.state}. Enter the keys again: ai-lab keys list says which.")  # noqa: T201 - as above
        return FINE

    return ended(work, url=url)


def show_audit(*, limit: int, as_json: bool, url: str | None) -> int:
    """Print the newest entries."""

    async def work() -> int:
        entries: list[AuditEntry] = []
        after: str | None = None
        async with opened_keys(url) as keys:
            while len(entries) < limit:
                page = await keys.audit(limit=min(_PAGE, limit - len(entries)), after=after)
                entries += page.data
                if not (after := page.after):
                    break
        if as_json:
            for entry in entries:
                sys.stdout.write(entry.model_dump_json() + "\n")
        elif entries:
            wide_console().print(draw_audit(entries))
        else:
            say("Nothing was done with keys yet.")
        return FINE

    return ended(work, url=url)


def verify_audit(*, anchor: str | None, as_json: bool, url: str | None) -> int:
    """Say whether the audit is whole; the code is 1 where it is not."""
    if anchor is not None and not _HEAD.fullmatch(anchor):
        say("error: --anchor takes a head as ai-lab vault status and the log show it: number, colon, 64 hex digits")
        return WRONG

    async def work() -> int:
        async with opened_keys(url) as keys:
            found = await keys.verify_audit(anchor)
        if as_json:
            sys.stdout.write(found.model_dump_json(indent=2) + "\n")
        else:
            print(_judged(found))  # noqa: T201 - as above
        return FINE if found.is_intact else FINDINGS

    return ended(work, url=url)


def _judged(found: AuditVerification) -> str:
    if found.is_intact:
        return f"The audit is intact: {found.entries} entries.\nNote its head elsewhere: {plain(found.head)}"
    where = f" from entry {found.first_bad_sequence} on" if found.first_bad_sequence is not None else ""
    return f"The audit is NOT intact{where}: {plain(found.reason)}"


def _lines(status: VaultStatus) -> list[str]:
    rotation = status.rotation
    told = {
        "Vault": status.state,
        "Root key": status.root_key_source,
        "Why": status.reason,
        "Remedy": status.remedy,
        "Keys": status.keys,
        "Data key": status.data_key,
        "Rotation": f"{rotation.status}, {rotation.done} of {rotation.total}" if rotation else None,
        "Audit head": status.audit_head,
    }
    return [f"{name:<12}{plain(value)}" for name, value in told.items() if value is not None]
