"""All providers of a lab: which models they have, and what a model's name means."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ai_lab.errors import LabError, ModelNotFound
from ai_lab.providers.catalog import SHIPPED_MODEL, is_on_this_machine, services
from ai_lab.providers.thinking import split_thinking
from ai_lab.providers.types import ChatRequest, Check, Chunk, ModelInfo, Provider
from ai_lab.settings import Settings

_LIST_LIMIT_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 5.0
_MODEL_LENGTH = 255


@dataclass(frozen=True)
class ListedModel:
    """A model with its provider; ``stale`` where the provider did not answer and this is its last known list."""

    provider: str
    info: ModelInfo
    stale: bool = False

    @property
    def full_name(self) -> str:
        """Return ``provider/model``."""
        return f"{self.provider}/{self.info.name}"


class CallObserver(Protocol):
    """What watches every call of a model. ``model`` is None where the provider does not list it."""

    def chat(
        self, provider: str, model: str | None, chunks: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        """Yield ``chunks`` as they are; closing this closes them."""
        ...

    async def embedding(
        self, provider: str, model: str | None, vectors: Awaitable[list[list[float]]]
    ) -> list[list[float]]:
        """Wait for ``vectors`` and return them."""
        ...


@dataclass(frozen=True)
class ResolvedModel:
    """What a request's model name means; ``is_listed``: whether the provider says that it has it."""

    provider: Provider
    model: str
    is_local: bool
    is_listed: bool = True
    observe: CallObserver | None = None

    @property
    def full_name(self) -> str:
        """Return ``provider/model``."""
        return f"{self.provider.name}/{self.model}"

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Return the answer as it is made; what a model thinks aloud in its text is moved to ``reasoning``."""
        chunks = self.provider.stream(request)
        if self.observe:
            chunks = self.observe.chat(self.provider.name, self._listed_name(), chunks)
        return split_thinking(chunks)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text. Raises as the provider does."""
        vectors = self.provider.embed(self.model, texts)
        if self.observe:
            return await self.observe.embedding(self.provider.name, self._listed_name(), vectors)
        return await vectors

    def _listed_name(self) -> str | None:
        return self.model if self.is_listed else None


@dataclass
class _Known:
    """The last list of a provider."""

    models: list[ModelInfo] = field(default_factory=list)
    asked_at: float = float("-inf")
    answered: bool = False


class Providers:
    """Every provider of a lab by name, in the order in which a bare model name is looked for."""

    def __init__(self, settings: Settings, observe: CallObserver | None = None) -> None:
        self._observe = observe
        rows = services(settings)
        self._rows = {row.name: row for row in rows}
        self._settings = settings
        self._built: dict[str, Provider] = {}
        self._local = {row.name for row in rows if is_on_this_machine(row.address(settings))}
        self._known = {row.name: _Known() for row in rows}
        self.titles = {row.name: row.title for row in rows}
        self._default = settings.default_model_name()

    async def list_models(self) -> list[ListedModel]:
        """Return the models of all providers.

        Each provider has one second. One that does not answer contributes its last known list, marked stale, and is
        not asked again for five seconds.
        """
        await asyncio.gather(*(self._refresh(name) for name in self._rows))
        return [
            ListedModel(name, info, stale=not known.answered)
            for name, known in self._known.items()
            for info in known.models
        ]

    async def resolve(self, name: str | None) -> ResolvedModel:
        """Return what ``provider/model``, a bare model name or None (the default model) means.

        Raises:
            ModelNotFound: no provider has it; the text names the nearest ones.
        """
        name = name or self._default or await self._first_model()
        provider_name, slash, model = name.partition("/")
        if slash and provider_name in self._rows:
            found = await self._find(provider_name, model)
            if found is None and self._known[provider_name].answered:
                raise self._not_found(name)
            # One that does not answer is asked all the same: its own error says more than "not found".
            return self._resolved(provider_name, found or model, is_listed=found is not None)
        await self.list_models()
        for candidate in self._rows:
            if found := await self._find(candidate, name):
                return self._resolved(candidate, found)
        raise self._not_found(name)

    async def default_model(self) -> str | None:
        """Return the ``provider/model`` that a request without a model gets, or None if there is none."""
        try:
            return self._default or await self._first_model()
        except ModelNotFound:
            return None

    async def checks(self, limit_seconds: float) -> dict[str, Check]:
        """Return whether each provider answers within the limit; spends no token."""
        results = await asyncio.gather(*(_checked(self.get(name), limit_seconds) for name in self._rows))
        return dict(zip(self._rows, results, strict=True))

    async def close(self) -> None:
        """Close every provider."""
        await asyncio.gather(*(provider.close() for provider in self._built.values()))

    def get(self, name: str) -> Provider:
        """Return a provider by name, made when it is first asked for: its libraries take their time to load."""
        if name not in self._built:
            self._built[name] = self._rows[name].build(self._settings)
        return self._built[name]

    def _resolved(self, provider_name: str, model: str, *, is_listed: bool = True) -> ResolvedModel:
        if len(model) > _MODEL_LENGTH:
            raise ModelNotFound(f"A model's name has at most {_MODEL_LENGTH} characters.")
        # Ollama passes models of this kind on to its own cloud.
        is_remote = provider_name == "ollama" and model.lower().endswith(("-cloud", ":cloud"))
        is_local = provider_name in self._local and not is_remote
        return ResolvedModel(self.get(provider_name), model, is_local, is_listed, self._observe)

    async def _first_model(self) -> str:
        embedded = await self.get("embedded").models()
        names = [info.name for info in embedded]
        if names:
            return f"embedded/{SHIPPED_MODEL if SHIPPED_MODEL in names else names[0]}"
        for listed in await self.list_models():
            if listed.provider != "echo":
                return listed.full_name
        raise ModelNotFound(
            "No model is available. Put a GGUF file into the models folder, start Ollama, or name echo/echo."
        )

    async def _find(self, provider_name: str, model: str) -> str | None:
        """Return the provider's own spelling of a model, from its last list if that has it, else from a new one."""
        known = self._known[provider_name]
        if found := _same(model, known.models):
            return found
        await self._refresh(provider_name)
        return _same(model, known.models)

    async def _refresh(self, name: str) -> None:
        known = self._known[name]
        if not known.answered and time.monotonic() - known.asked_at < _ASK_AGAIN_SECONDS:
            return
        try:
            async with asyncio.timeout(_LIST_LIMIT_SECONDS):
                known.models = await self.get(name).models()
            known.answered = True
        except (LabError, TimeoutError):
            known.answered = False
        known.asked_at = time.monotonic()

    def _not_found(self, name: str) -> ModelNotFound:
        names = [f"{provider}/{info.name}" for provider, known in self._known.items() for info in known.models]
        by_bare = {full.partition("/")[2].lower(): full for full in names} | {full.lower(): full for full in names}
        near = difflib.get_close_matches(name.lower(), by_bare, n=3, cutoff=0.5)
        matches = list(dict.fromkeys(by_bare[match] for match in near))
        hint = f"Did you mean {' or '.join(matches)}?" if matches else "GET /v1/models lists what there is."
        return ModelNotFound(f"There is no model {name!r}. {hint}", matches)


async def _checked(provider: Provider, limit_seconds: float) -> Check:
    try:
        async with asyncio.timeout(limit_seconds):
            return await provider.check()
    except TimeoutError:
        return Check(
            reachable=False,
            detail=f"no answer in {limit_seconds:g} s",
            remedy="See that the service is not overloaded; requests to it may be slow or fail.",
        )


def _same(name: str, models: list[ModelInfo]) -> str | None:
    """Return the listed name that ``name`` means: case and Ollama's ``:latest`` do not matter."""
    wanted = name.lower().removesuffix(":latest")
    return next((info.name for info in models if info.name.lower().removesuffix(":latest") == wanted), None)
