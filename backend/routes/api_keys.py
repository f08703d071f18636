"""``/api-keys``: the vault over HTTP. No answer holds a key, in whole or in part, beyond its ``hint``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from ai_lab.errors import NotFound
from ai_lab.vault import Vault
from ai_lab.vault.schemas import (
    ApiKeyList,
    AuditPage,
    AuditVerification,
    KeyAnswer,
    KeyChange,
    KeyTestAnswer,
    KeyToTest,
    Label,
    NewKey,
    Rekey,
    Rotation,
    ServiceName,
    VaultStatus,
)
from backend.deps import After, LabDep, Limit

router = APIRouter(prefix="/api-keys", tags=["api-keys"])
_REPLACED: dict[int | str, dict[str, Any]] = {200: {"model": KeyAnswer, "description": "It replaced an earlier one."}}


async def _vault(lab: LabDep) -> Vault:
    return lab.vault


async def _actor(request: Request) -> str:
    """Return who this is, as the audit names it."""
    return f"api:{getattr(request.state, 'client', 'local')}"


VaultDep = Annotated[Vault, Depends(_vault)]
Actor = Annotated[str, Depends(_actor)]
Service = Annotated[ServiceName, Path(description="The service's name, as GET /api-keys lists it.")]
LabelQuery = Annotated[Label | None, Query(description="Which one, where the service has several keys.")]


class Consent(BaseModel):
    """That it is known what will be lost."""

    model_config = ConfigDict(extra="forbid")

    i_know: Literal[True] = Field(description="Every stored secret is lost, and must be entered again.")


@router.get("")
async def list_keys(
    vault: VaultDep, revoked: Annotated[bool, Query(description="Also those that were removed.")] = False
) -> ApiKeyList:
    """Return all keys without their secrets, those of the environment included, and what can be stored."""
    return await vault.listing(with_revoked=revoked)


@router.post("", status_code=201, responses=_REPLACED)
async def add_key(new: NewKey, vault: VaultDep, actor: Actor, response: Response) -> KeyAnswer:
    """Store a key. The same service and label again replaces it, so that a repeated request does no harm."""
    key, warnings, is_new = await vault.add(new, actor=actor)
    response.status_code = 201 if is_new else 200
    return KeyAnswer.of(key, "stored" if is_new else "replaced", warnings)


@router.get("/status")
async def vault_status(vault: VaultDep) -> VaultStatus:
    """Say whether the vault is open, and what to do where it is not."""
    return vault.status()


@router.post("/rotate", status_code=202)
async def rotate_data_key(vault: VaultDep, actor: Actor) -> Rotation:
    """Move all secrets to a new data key, in the background; ``GET /api-keys/rotation`` says how far it is."""
    return await vault.rotate(actor=actor)


@router.get("/rotation")
async def last_rotation(vault: VaultDep) -> Rotation:
    """Say how far the rotation is, or how the last one ended."""
    if rotation := await vault.rotation():
        return rotation
    raise NotFound("No rotation was made yet. POST /api-keys/rotate starts one.")


@router.post("/rekey")
async def change_root_key(vault: VaultDep, actor: Actor) -> Rekey:
    """Change the root key, under which the data keys lie. Back the new one up."""
    return await vault.rekey(actor=actor)


@router.post("/reset")
async def reset_vault(consent: Consent, vault: VaultDep, actor: Actor) -> VaultStatus:  # noqa: ARG001 - read by FastAPI
    """Begin anew where the root key is lost: names and hints stay, so that you see what to enter again."""
    await vault.reset(actor=actor)
    return vault.status()


@router.get("/audit")
async def list_audit(vault: VaultDep, limit: Limit = 20, after: After = None) -> AuditPage:
    """Return what was done with keys, the newest first."""
    return await vault.audit(limit=limit, after=after)


@router.get("/audit/verify")
async def verify_audit(
    vault: VaultDep,
    anchor: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,18}:[0-9a-f]{64}$", description="sequence:mac, noted elsewhere at an earlier time."),
    ] = None,
) -> AuditVerification:
    """Check the chain of all entries. Only an ``anchor`` tells whether its newest ones were cut off."""
    return await vault.verify_audit(anchor)


@router.patch("/{service}")
async def change_key(
    service: Service, change: KeyChange, vault: VaultDep, actor: Actor, label: LabelQuery = None
) -> KeyAnswer:
    """Give a key another label or address. A new address clears the secret: it must be entered again."""
    return KeyAnswer.of(await vault.change(service, label, change, actor=actor), "changed")


@router.delete("/{service}")
async def remove_key(service: Service, vault: VaultDep, actor: Actor, label: LabelQuery = None) -> KeyAnswer:
    """Erase a key. That there was one stays on record."""
    return KeyAnswer.of(await vault.remove(service, label, actor=actor), "removed")


@router.post("/{service}/test")
async def check_key(
    service: Service,
    vault: VaultDep,
    actor: Actor,
    given: Annotated[KeyToTest | None, Body(description="A key that is tested without being stored.")] = None,
    label: LabelQuery = None,
) -> KeyTestAnswer:
    """Ask the service, at no cost, whether it takes the stored key, or the one in the body."""
    report, tested, warnings = await vault.test(service, label, given, actor=actor)
    return KeyTestAnswer.of(service, tested, report, warnings)
