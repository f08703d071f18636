"""Shapes of the vault, shared by routes, clients and the command line. None of those that leave holds a secret."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from ai_lab.shapes import JsonObject

KeyState = Literal["active", "revoked", "unreadable", "tampered", "needs_reentry"]
CheckResult = Literal[
    "valid",
    "valid_restricted",
    "valid_no_quota",
    "invalid",
    "blocked",
    "wrong_endpoint",
    "rate_limited",
    "unreachable",
    "unknown",
]
#: What a service calls a key that works, now or after a payment.
WORKING = frozenset({"valid", "valid_restricted", "valid_no_quota"})

ServiceName = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")
]
#: Printable, on one line; it is shown on pages, where it is text and never markup.
Label = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")
]
BaseUrl = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x20\x7f]*$")]
DEFAULT_LABEL = "default"


class NewKey(BaseModel):
    """A key to store. The same service and label again replaces the key."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    service_name: ServiceName = Field(description="openai, anthropic …, or a name of your own with `base_url`.")
    api_key: SecretStr = Field(description="Never shown again: no answer holds it.")
    base_url: BaseUrl | None = Field(default=None, description="Where it is used; the key goes nowhere else.")
    label: Label = Field(default=DEFAULT_LABEL, description="Tells several keys of a service apart.")
    force: bool = Field(default=False, description="Store it though it looks like a key of another service.")
    details: JsonObject = Field(default_factory=dict, description="What else belongs to it, such as limits.")


class KeyChange(BaseModel):
    """What is to be changed; what is missing stays."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    label: Label | None = None
    base_url: BaseUrl | None = Field(
        default=None, description="Another address. The stored key never goes there: it must be entered again."
    )


class KeyToTest(BaseModel):
    """A key that is tested without being stored. Without `api_key` the stored one is tested, at its own address."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr | None = None
    base_url: BaseUrl | None = Field(default=None, description="Only together with `api_key`.")


class CheckReport(BaseModel):
    """What a service said about a key."""

    result: CheckResult
    message: str = Field(description="One or two sentences for people: what was seen, and the remedy.")
    status: int | None = Field(default=None, description="HTTP status of the answer; null where none came.")
    latency_ms: float | None = None
    tested_at: datetime
    details: dict[str, Any] = Field(default_factory=dict, description="What the service tells of it: role, limit …")


class KeyInfo(BaseModel):
    """A stored key, or one of the environment. ``hint`` is all that is ever shown of it."""

    id: str | None = Field(description="null for a key of the environment.")
    service_name: str
    label: str
    source: Literal["vault", "environment"] = "vault"
    environment_name: str | None = None
    base_url: str | None
    state: KeyState
    hint: str
    version: int = 1
    created_at: datetime | None = None
    rotated_at: datetime | None = Field(default=None, description="When the secret was last replaced.")
    last_used_at: datetime | None = Field(default=None, description="To the minute.")
    last_test: CheckReport | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    remedy: str | None = Field(default=None, description="What to do where the key cannot be used.")


class SupportedService(BaseModel):
    """What can be stored for a service."""

    title: str
    base_url: str | None = Field(description="null: you must give one.")
    needs_base_url: bool = False
    needs_key: bool = True
    key_hint: str = Field(description="What its keys look like, with the date of that knowledge.")
    help_url: str | None = None
    environment_names: list[str] = Field(default_factory=list)


class VaultStatus(BaseModel):
    """Whether the vault can be used, and where its root key comes from."""

    state: Literal["open", "sealed"]
    root_key_source: str = Field(description="Where the root key comes from; never the key.")
    reason: str | None = Field(default=None, description="Why it is sealed.")
    remedy: str | None = None
    keys: int = 0
    data_key: str | None = Field(default=None, description="Number of the data key that new secrets get.")
    rotation: Rotation | None = None
    audit_head: str | None = Field(default=None, description="sequence:mac of the newest entry; note it elsewhere.")


class Rotation(BaseModel):
    """How far the move of all secrets to a new data key is."""

    status: Literal["running", "complete"]
    from_data_keys: list[str]
    to_data_key: str
    total: int
    done: int
    unreadable: int = Field(
        default=0, description="Secrets that could not be read before either; they stay as they are."
    )
    started_at: datetime
    finished_at: datetime | None = None


class Rekey(BaseModel):
    """A change of the root key."""

    root_key_source: str
    root_key: str = Field(description="Identifies the new root key; not the key.")
    message: str


class ApiKeyList(BaseModel):
    """All keys by service; ``configured_services`` and ``supported_services`` as earlier clients read them."""

    configured_services: list[str]
    supported_services: dict[str, SupportedService]
    keys: list[KeyInfo]
    vault: VaultStatus


class KeyAnswer(BaseModel):
    """The earlier shape, and beside it what was stored."""

    success: bool
    message: str
    service_name: str
    key: KeyInfo | None = None
    warnings: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, key: KeyInfo, what: str, warnings: list[str] | None = None) -> KeyAnswer:
        """Return what is said of a key that was stored, replaced, changed or removed."""
        message = f"The key {key.label!r} of {key.service_name} was {what}."
        return cls(success=True, message=message, service_name=key.service_name, key=key, warnings=warnings or [])


class KeyTestAnswer(BaseModel):
    """The earlier shape, and beside it what the service said. ``success``: the key works."""

    success: bool
    message: str
    service_name: str
    label: str | None = None
    result: CheckResult
    status: int | None = None
    latency_ms: float | None = None
    tested_at: datetime
    details: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, service_name: str, label: str | None, report: CheckReport, warnings: list[str]) -> KeyTestAnswer:
        """Return what is said of a key that was tested."""
        is_working = report.result in WORKING
        return cls(success=is_working, service_name=service_name, label=label, warnings=warnings, **dict(report))


class AuditEntry(BaseModel):
    """One entry of the chain. ``mac`` covers every field and the entry before."""

    sequence: int
    at: datetime
    actor: str
    action: str
    target: str | None = Field(description="Id of the key.")
    service_name: str | None
    label: str | None = None
    outcome: str
    request_id: str | None
    count: int = Field(default=1, description="Uses of a key within a minute are one entry.")
    details: dict[str, Any] = Field(default_factory=dict)
    mac: str


class AuditPage(BaseModel):
    """Entries, the newest first."""

    data: list[AuditEntry]
    has_more: bool
    after: str | None = None


class AuditVerification(BaseModel):
    """Whether the chain is whole."""

    is_intact: bool
    entries: int
    first_bad_sequence: int | None = None
    reason: str | None = None
    head: str | None = Field(default=None, description="sequence:mac of the newest entry.")
