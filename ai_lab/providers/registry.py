"""All providers of a lab: which models they have, and what a model's name means."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ai_lab.errors import ApiKeyNotFound, LabError, ModelNotFound
from ai_lab.providers.catalog import (
    SHIPPED_MODEL,
    NoSecrets,
    Service,
    is_on_this_machine,
    keyed_service,
    keyed_services,
    services,
)
from ai_lab.providers.known_services import canonical, known_services
from ai_lab.providers.model_list import ModelList
from ai_lab.providers.outbound import Outbound
from ai_lab.providers.thinking import split_thinking
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, ModelInfo, Provider, Secrets
from ai_lab.settings import Settings

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

    async def embedding(self, provider: str, model: str | None, vectors: Awaitable[Embeddings]) -> Embeddings:
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

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Return one vector per text. Raises as the provider does."""
        vectors = self.provider.embed(self.model, texts)
        if self.observe:
            return await self.observe.embedding(self.provider.name, self._listed_name(), vectors)
        return await vectors

    def _listed_name(self) -> str | None:
        return self.model if self.is_listed else None


class Providers:
    """Every provider of a lab by name, in the order in which a bare model name is looked for.

    Services that a stored key makes usable come and go with the key. They are the last in which a name is looked for,
    and never the default.

    Args:
        settings: of the lab.
        observe: watches every call of a model.
        secrets: gives API keys; default: none but those in the settings.
        renew_seconds: how often the lists of models that are in use are asked for in the background.
    """

    def __init__(
        self,
        settings: Settings,
        observe: CallObserver | None = None,
        secrets: Secrets | None = None,
        *,
        renew_seconds: float = 300.0,
    ) -> None:
        self.outbound = Outbound(settings.allowed_addresses)
        self._observe = observe
        self._secrets = secrets or NoSecrets()
        self._settings = settings
        self._fixed = {row.name: row for row in services(settings)}
        self._keyed: dict[str, str] = {}
        self._rows = dict(self._fixed)
        self._built: dict[str, Provider] = {}
        self._lists = {name: ModelList() for name in self._fixed}
        self._closing: set[asyncio.Task[None]] = set()
        self._default = settings.default_model_name()
        self._renew_seconds = renew_seconds
        self._renewing: asyncio.Task[None] | None = None

    async def list_models(self) -> list[ListedModel]:
        """Return the models of all providers.

        Each provider has one second. One that does not answer contributes its last known list, marked stale, and is
        not asked again for five seconds; services with keys are asked every five minutes. Lists that were wanted in the
        last hour are asked for in the background as well, so that whoever wants them next need not wait.
        """
        rows = self._present()
        await asyncio.gather(*(self._refresh(name) for name in rows))
        return [
            ListedModel(name, info, stale=not self._lists[name].answered)
            for name in rows
            if name in self._lists  # else its key was removed meanwhile
            for info in self._lists[name].models
        ]

    def names(self) -> list[str]:
        """Return the providers that there are now; no I/O."""
        return list(self._present())

    def list_has(self, model: str) -> bool:
        """Return whether a model of this name, without its provider, is in a list as it was last told; no I/O."""
        return any(listed.find(model) for listed in self._lists.values())

    async def resolve(self, name: str | None) -> ResolvedModel:
        """Return what ``provider/model``, a bare model name or None (the default model) means.

        Raises:
            ModelNotFound: no provider has it; the text names the nearest ones.
            ApiKeyNotFound: it is at a service that needs a key, and there is none.
        """
        name = name or self._default or await self._first_model()
        provider_name, slash, model = name.partition("/")
        if slash and provider_name in self._present():
            listed = self._lists[provider_name]
            found = listed.find(model)
            if found is None:
                await self._refresh(provider_name)
                found = listed.find(model)
            if found is None and listed.answered and not self.is_keyed(provider_name):
                raise self._not_found(name)
            # One that does not answer is asked all the same: its own error says more than "not found". So is one with
            # a key: many take names that they do not list.
            return self._resolved(provider_name, found or model, is_listed=found is not None)
        keyed = [candidate for candidate in self._present() if self.is_keyed(candidate)]
        for candidates in ([candidate for candidate in self._rows if candidate not in keyed], keyed):
            await asyncio.gather(*(self._refresh(candidate) for candidate in candidates))
            for candidate in candidates:
                if candidate in self._lists and (found := self._lists[candidate].find(name)):
                    return self._resolved(candidate, found)
        raise (self._not_usable(provider_name) if slash else None) or self._not_found(name)

    async def default_model(self) -> str | None:
        """Return the ``provider/model`` that a request without a model gets, or None if there is none."""
        try:
            return self._default or await self._first_model()
        except ModelNotFound:
            return None

    async def checks(self, limit_seconds: float) -> dict[str, Check]:
        """Return whether each provider answers within the limit; spends no token and uses no stored key."""
        rows = list(self._present())
        asked = [name for name in rows if not self.is_keyed(name)]
        results = await asyncio.gather(*(_checked(self.get(name), limit_seconds) for name in asked))
        answers = dict(zip(asked, results, strict=True))
        return {name: answers.get(name) or _remembered(self._lists.get(name)) for name in rows}

    async def close(self) -> None:
        """Close every provider."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        await asyncio.gather(*(listed.close() for listed in self._lists.values()))
        await asyncio.gather(*self._closing, *(provider.close() for provider in self._built.values()))

    def get(self, name: str) -> Provider:
        """Return a provider by name, made when it is first asked for: its libraries take their time to load.

        Raises:
            LabError: there is none, or none any more.
        """
        if name not in self._built:
            row = self._present().get(name)
            if row is None:
                raise self._not_usable(name) or self._not_found(name)
            self._built[name] = row.build(self._settings, self._secrets)
        return self._built[name]

    def is_keyed(self, name: str) -> bool:
        """Return whether requests to a provider carry a stored key, so that none is made without need."""
        row = self._rows.get(name)
        return row is not None and row.takes_key and (name in self._keyed or self._secrets.has_key(name))

    def is_own(self, name: str) -> bool:
        """Return whether a provider is built in or named in the settings, and may lie in a private network."""
        return name in self._fixed

    def _present(self) -> dict[str, Service]:
        """Return the rows that there are now; no I/O."""
        taken = {name.lower() for name in self._fixed}  # keys are stored under names in lower case
        keyed = {name: url for name, url in keyed_services(self._secrets).items() if name not in taken}
        if keyed != self._keyed:
            for name in [name for name, url in self._keyed.items() if keyed.get(name) != url]:
                self._forget(name)
            self._keyed = keyed
            added = {name: keyed_service(name, url, self.outbound) for name, url in keyed.items()}
            self._rows = self._fixed | added
            self._lists = {name: self._lists.get(name) or ModelList() for name in self._rows}
        return self._rows

    def _forget(self, name: str) -> None:
        """Close a provider whose key is gone or is for another address now."""

        async def close(listed: ModelList, provider: Provider | None) -> None:
            await listed.close()
            if provider is not None:
                await provider.close()

        task = asyncio.create_task(close(self._lists.pop(name), self._built.pop(name, None)))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _resolved(self, provider_name: str, model: str, *, is_listed: bool = True) -> ResolvedModel:
        if len(model) > _MODEL_LENGTH:
            raise ModelNotFound(f"A model's name has at most {_MODEL_LENGTH} characters.")
        # Ollama passes models of this kind on to its own cloud.
        is_remote = provider_name == "ollama" and model.lower().endswith(("-cloud", ":cloud"))
        provider = self.get(provider_name)
        is_local = is_on_this_machine(self._rows[provider_name].address(self._settings)) and not is_remote
        return ResolvedModel(provider, model, is_local, is_listed, self._observe)

    async def _first_model(self) -> str:
        embedded = await self.get("embedded").models()
        names = [info.name for info in embedded]
        if names:
            return f"embedded/{SHIPPED_MODEL if SHIPPED_MODEL in names else names[0]}"
        own = [name for name in self._present() if name != "echo" and not self.is_keyed(name)]
        await asyncio.gather(*(self._refresh(name) for name in own))
        for name in own:
            for info in self._lists[name].models:
                if info.capabilities != {"embeddings"}:
                    return f"{name}/{info.name}"
        raise ModelNotFound(
            "No model is available. Put a GGUF file into the models folder, start Ollama, or name echo/echo."
        )

    async def _refresh(self, name: str) -> None:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        if listed := self._lists.get(name):
            await listed.refresh(lambda: self.get(name), is_keyed=self.is_keyed(name))

    async def _renew(self) -> None:
        """Ask for the lists that are in use, as long as the lab is open; those inside this machine are always new."""
        while True:
            await asyncio.sleep(self._renew_seconds)
            names = [name for name, row in self._present().items() if row.address(self._settings) is not None]
            await asyncio.gather(*(self._lists[name].renew(partial(self.get, name)) for name in names))

    def _not_usable(self, provider_name: str) -> LabError | None:
        """Return why a service that we know cannot be asked."""
        service = known_services().get(canonical(provider_name))
        if service is None or service.name in self._rows:
            return None
        return ApiKeyNotFound(
            f"{service.title} has no API key. Store one: ./ai-lab keys add {service.name}", param="model"
        )

    def _not_found(self, name: str) -> ModelNotFound:
        names = list(self._settings.aliases)
        names += [f"{provider}/{info.name}" for provider, known in self._lists.items() for info in known.models]
        by_bare = {full.partition("/")[2].lower(): full for full in names if "/" in full}
        by_bare |= {full.lower(): full for full in names}
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


def _remembered(listed: ModelList | None) -> Check:
    """Return what is known of a service with a key without asking it: health is asked for all the time."""
    if listed is None or listed.failure is None:
        detail = "answered last time" if listed and listed.answered else "has an API key; it is asked when it is used"
        return Check(reachable=True, detail=detail)
    return Check(reachable=False, detail=listed.failure, remedy="./ai-lab keys test shows what is wrong.")
