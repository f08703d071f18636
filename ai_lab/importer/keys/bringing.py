"""Store what a reader found, row by row; nothing that is in the vault already is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from pydantic import SecretStr, ValidationError

from ai_lab.errors import (
    AddressRefused,
    ApiKeyExists,
    ApiKeyRefused,
    InvalidRequest,
    RateLimited,
    ServiceNotFound,
    VaultSealed,
)
from ai_lab.importer.keys.rows import Found, Row, Unreadable
from ai_lab.providers.known_services import known_services, origin_of
from ai_lab.vault.cipher import hint_of
from ai_lab.vault.formats import judge
from ai_lab.vault.schemas import DEFAULT_LABEL, ApiKeyList, KeyAnswer, NewKey

Result = Literal["stored", "would be stored", "already there", "refused"]
_Label = tuple[str, str]
_LONGEST_WAIT_SECONDS = 120.0


class Keeper(Protocol):
    """The vault of this process, or that of a server."""

    async def add(
        self,
        service_name: str,
        api_key: str,
        *,
        label: str = DEFAULT_LABEL,
        base_url: str | None = None,
        force: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> KeyAnswer:
        """Store a key."""
        ...

    async def list(self, *, with_revoked: bool = False) -> ApiKeyList:
        """Return the keys."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a row. ``said``: reasons, remarks and warnings, each one sentence or two."""

    where: str
    result: Result
    service_name: str | None = None
    label: str | None = None
    said: tuple[str, ...] = ()


async def bring_in(rows: Iterable[Row], keeper: Keeper, *, dry_run: bool = False) -> AsyncIterator[Outcome]:
    """Store the keys that were found and yield what became of every row.

    Args:
        rows: as a reader yields them.
        keeper: where they are stored.
        dry_run: only say what would be; whether a key is there already is then told by its hint.

    Raises:
        VaultSealed: nothing can be stored.
    """
    listed = await keeper.list()
    if listed.vault.state == "sealed":
        raise VaultSealed(f"The vault is sealed: {listed.vault.reason} {listed.vault.remedy}")
    known = [key for key in listed.keys if key.source == "vault"]
    # A key that cannot be read any more is what an import shall bring back.
    labels: set[_Label] = {(key.service_name, key.label) for key in known if key.state != "unreadable"}
    lost: set[_Label] = {(key.service_name, key.label) for key in known} - labels
    hints = {
        (key.service_name, key.hint) for key in known if key.state == "active" and key.hint != hint_of("")
    }  # short keys share one
    for row in rows:
        if isinstance(row, Unreadable):
            yield Outcome(row.where, "refused", said=(row.reason,))
            continue
        label = _free_label(row, labels)
        if (row.service_name, label) in lost:
            row = _at_its_address(row)  # noqa: PLW2901 - as it is to be stored
        outcome = _rehearsed(row, label, hints) if dry_run else await _stored(row, label, keeper)
        if outcome.result in {"stored", "would be stored"}:
            labels.add((row.service_name, label))
            hints.add((row.service_name, hint_of(row.secret.get_secret_value())))
        yield outcome


def _free_label(row: Found, labels: set[_Label]) -> str:
    """Return a label that no key of the service has: a key that is in use is never replaced by an import."""
    label, number = DEFAULT_LABEL, 1
    while (row.service_name, label) in labels:
        label = row.source if number == 1 else f"{row.source} {number}"
        number += 1
    return label


def _at_its_address(row: Found) -> Found:
    """Return the row with its address spelled out, so that it does not get that of the key in whose place it comes."""
    service = known_services().get(row.service_name)
    return replace(row, base_url=row.base_url or service.base_url) if service and not service.is_local else row


async def _stored(row: Found, label: str, keeper: Keeper) -> Outcome:
    secret = row.secret.get_secret_value()
    waited_seconds = 0.0
    while True:
        try:
            answer = await keeper.add(row.service_name, secret, label=label, base_url=row.base_url, details=row.details)
        except RateLimited as limit:
            wait_seconds = limit.retry_after_seconds or 1.0
            waited_seconds += wait_seconds
            if waited_seconds > _LONGEST_WAIT_SECONDS:
                raise
            await asyncio.sleep(wait_seconds)
        except ApiKeyExists:
            return Outcome(row.where, "already there", row.service_name)
        except (ApiKeyRefused, AddressRefused, InvalidRequest, ServiceNotFound) as error:
            return Outcome(row.where, "refused", row.service_name, said=(error.detail,))
        else:
            return Outcome(row.where, "stored", row.service_name, label, (*row.remarks, *answer.warnings))


def _rehearsed(row: Found, label: str, hints: set[tuple[str, str]]) -> Outcome:
    service = known_services().get(row.service_name)
    if service and service.base_url is None and row.base_url is None:
        name = service.endpoint_environment_name or "its address"
        said = f"{service.title} has an address for each customer: set {name} where the server runs, or add it by hand"
        return Outcome(row.where, "refused", row.service_name, said=(said,))
    try:
        NewKey(
            service_name=row.service_name,
            api_key=SecretStr("-"),
            label=label,
            base_url=row.base_url,
            details=row.details,
        )
        is_own = row.base_url is None or (service is not None and service.is_own(row.base_url))
        if row.base_url is not None:
            origin_of(row.base_url)
        judged = judge(service, row.secret.get_secret_value(), has_own_address=not is_own)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        return Outcome(row.where, "refused", row.service_name, said=(said,))
    except (ApiKeyRefused, AddressRefused) as error:
        return Outcome(row.where, "refused", row.service_name, said=(error.detail,))
    if (row.service_name, hint_of(judged.secret)) in hints:
        return Outcome(row.where, "already there", row.service_name)
    return Outcome(row.where, "would be stored", row.service_name, label, (*row.remarks, *judged.warnings))
