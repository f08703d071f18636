"""The shapes of settings that hold more than one value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import NoDecode

from ai_lab.errors import InvalidSettings


def _http_address(url: str) -> str:
    """Return an http(s) address without its trailing slash; raises ``ValueError``, which never holds it."""
    try:
        TypeAdapter(HttpUrl).validate_python(url)
    except ValidationError:
        raise ValueError("it is not an http or https address") from None
    return url.rstrip("/")


class ServerEntry(BaseModel):
    """One OpenAI-compatible server of the user's own: where it is and, if it needs one, its key."""

    model_config = ConfigDict(extra="forbid")

    base_url: Annotated[str, AfterValidator(_http_address)]
    api_key: SecretStr | None = None
    context_tokens: int | None = Field(default=None, ge=128)


def as_server_entries(value: Any) -> Any:
    """Accept ``{"name": "http://…"}`` as short for ``{"name": {"base_url": "http://…"}}``."""
    if isinstance(value, dict):
        return {name: {"base_url": entry} if isinstance(entry, str) else entry for name, entry in value.items()}
    return value


def _none_if_blank(value: Any) -> Any:
    """Treat ``NAME=`` in a .env file as 'not set'."""
    return None if isinstance(value, str) and not value.strip() else value


def as_level(value: Any) -> Any:
    """Accept the spellings that earlier installations used."""
    name = str(value).strip().upper()
    return {"WARN": "WARNING", "CRITICAL": "ERROR", "FATAL": "ERROR"}.get(name, name)


class AliasEntry(BaseModel):
    """A name for a list of models (``provider/model``), and the order in which they are asked.

    ``order``: as listed; ``weighted``: by chance, in proportion to ``weights``; ``cheapest``: by price, unknown ones
    last; ``fastest``: by the time to the first token that was measured last. The rest follows where one fails.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...] = Field(min_length=1)
    strategy: Literal["order", "weighted", "cheapest", "fastest"] = "order"
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if (self.strategy == "weighted") != (self.weights is not None):
            raise ValueError("weights belong to the strategy 'weighted', and it needs them")
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError("there must be one weight for each model")
        return self


class ServiceLimits(BaseModel):
    """What is asked of a service at most; None: no limit of the user's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int | None = Field(default=None, ge=1)
    requests: str | None = None
    tokens: str | None = None


class PriceEntry(BaseModel):
    """US dollars per million tokens. What is None costs as ``input``, or for ``reasoning`` as ``output``.

    Where ``output`` is None, only what puts out no tokens (embeddings) has a known cost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    output: float | None = Field(default=None, ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    cache_write: float | None = Field(default=None, ge=0)
    reasoning: float | None = Field(default=None, ge=0)


def as_alias_entries(value: Any) -> Any:
    """Accept ``{"name": ["provider/model", …]}`` as short for ``{"name": {"models": […]}}``."""
    if isinstance(value, dict):
        return {name: {"models": entry} if isinstance(entry, list) else entry for name, entry in value.items()}
    return value


def _as_list(value: Any) -> Any:
    """Take texts that commas or white space separate for a list."""
    return tuple(part for part in re.split(r"[,\s]+", value) if part) if isinstance(value, str) else value


TextList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_list)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_blank)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_none_if_blank)]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_blank)]


def check_base_url(url: str) -> str:
    """Return an http(s) address without its trailing slash.

    Raises:
        InvalidSettings: it is not one.
    """
    try:
        return _http_address(url)
    except ValueError:
        raise InvalidSettings(
            "What was given is not an http or https address, such as http://127.0.0.1:8001."
        ) from None
