"""What is made of a plan when it comes in: its addresses, what it is called, and what it has in common with others."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr, ValidationError

from ai_lab.benchmarks.job import without_keys
from ai_lab.benchmarks.plan import Arm, GoodputSearch, Plan
from ai_lab.benchmarks.schemas import Progress
from ai_lab.benchmarks.targets.address import Address, target_key
from ai_lab.benchmarks.targets.resolve import resolve
from ai_lab.errors import InvalidRequest
from ai_lab.providers import Providers

_TITLE_LENGTH = 500
_KEY_LENGTH = 500
#: What a plan may differ in and still be the same measurement.
_NOT_MEASURED = {"seed", "title", "equivalence_margin", "slo"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan that can be measured: every model named, every arm with its address."""

    plan: Plan  # with keys
    addresses: list[Address]
    target_keys: list[str]

    @property
    def identity(self) -> str:
        """Return what is equal for runs that ask the same of the same targets."""
        plain = without_keys(self.plan).model_dump(mode="json", exclude=_NOT_MEASURED)
        return _sha256(plain, [[one.model, one.base_url, one.provider] for one in self.addresses], self.target_keys)


async def prepare(plan: Plan, providers: Providers) -> Prepared:
    """Find what the plan's arms are.

    Raises:
        AddressRefused: nothing is sent to an address of this kind.
        InvalidRequest: an arm asks for what its target cannot do, or is the same as another one.
        ModelNotFound: no provider has a model; the text names the nearest ones.
    """
    arms = []
    for arm in plan.arms:
        if arm.model is None:  # the default may be another one when the run is repeated
            name = (await providers.resolve(None)).full_name
            arms.append(arm.model_copy(update={"model": name}))
        else:
            arms.append(arm)
    plan = _with_arms(plan, arms)
    addresses = [await resolve(arm, providers) for arm in plan.arms]
    # In a thread: finding out what this machine is called may ask a name server.
    keys = await asyncio.to_thread(lambda: sorted({target_key(address)[:_KEY_LENGTH] for address in addresses}))
    return Prepared(plan, addresses, keys)


def keyed_arms(plan: Plan) -> list[str]:
    """Return the names of the arms that have a key."""
    return [name for name, arm in zip(plan.arm_names(), plan.arms, strict=True) if arm.api_key]


def with_keys(plan: Plan, keyed: list[str], api_keys: Mapping[str, str]) -> Plan:
    """Return a stored plan with its keys, which are given anew by name of the arm.

    Raises:
        InvalidRequest: one is missing, or is for no arm that had one.
    """
    if missing := [name for name in keyed if name not in api_keys]:
        raise InvalidRequest(
            f"{_listed(missing)} had an API key, which is never stored. Give it again under that name in api_keys.",
            param="api_keys",
        )
    if strange := sorted(set(api_keys) - set(keyed)):
        raise InvalidRequest(f"{_listed(strange)} had no API key. Leave it out of api_keys.", param="api_keys")
    named = zip(plan.arm_names(), plan.arms, strict=True)
    arms = [
        arm.model_copy(update={"api_key": SecretStr(api_keys[name])}) if name in api_keys else arm
        for name, arm in named
    ]
    return plan.model_copy(update={"arms": arms})


def kind_of(plan: Plan) -> Literal["run", "sweep", "compare", "goodput"]:
    """Return what lists call the run."""
    if isinstance(plan.load, GoodputSearch):
        return "goodput"
    if len(plan.arms) > 1:
        return "compare"
    return "sweep" if len(plan.levels()) > 1 else "run"


def title_of(plan: Plan) -> str:
    """Return the plan's title, or what is compared."""
    return storable(plan.title or " against ".join(plan.arm_names()))[:_TITLE_LENGTH]


def first_progress(plan: Plan, *, message: str | None = None) -> dict[str, Any]:
    """Return how far a run is that waits, as JSON values."""
    total = plan.load.requests * len(plan.levels()) * len(plan.arms)
    return Progress(phase="queued", total=total, message=message).model_dump(mode="json")


def request_hash(plan: Plan, rerun_of: str | None) -> str:
    """Return what is equal for requests that are one and the same; not even a trace of a key goes into it."""
    return _sha256(without_keys(plan).model_dump(mode="json"), keyed_arms(plan), rerun_of)


def storable(text: str) -> str:
    """Return a text as both databases can keep it: Postgres has no NUL, and no encoding half a surrogate pair."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def _with_arms(plan: Plan, arms: list[Arm]) -> Plan:
    try:
        return Plan.model_validate({name: getattr(plan, name) for name in Plan.model_fields} | {"arms": arms})
    except ValidationError as error:
        raise InvalidRequest(error.errors()[0]["msg"].removeprefix("Value error, "), param="arms") from None


def _sha256(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
