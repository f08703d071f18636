"""What the model's name of a request means: an alias of the settings, or a model of a provider."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from ai_lab.costs import Costs
from ai_lab.errors import InvalidSettings, LabError, LocalOnly
from ai_lab.gateway.call import Route
from ai_lab.gateway.pace import Pace
from ai_lab.providers import Providers, ResolvedModel
from ai_lab.providers.known_services import canonical, known_services
from ai_lab.settings import Settings
from ai_lab.settings.entries import AliasEntry

_NAMED_MODELS = 3

logger = logging.getLogger(__name__)


def check_aliases(settings: Settings, providers: Providers) -> None:
    """Refuse aliases that could be taken for a provider.

    Raises:
        InvalidSettings: with the remedy.
    """
    for alias in settings.aliases:
        name = alias.partition("/")[0]
        if not alias.strip() or providers.is_own(name) or canonical(name) in known_services():
            raise InvalidSettings(
                f"AI_LAB_ALIASES: {alias!r} cannot be the name of an alias, because {name!r} is a provider's. "
                "Choose another name, such as fast or smart."
            )


class Router:
    """Finds models by name. Reads what ``providers`` know; asks no model.

    Args:
        settings: with the aliases.
        providers: resolve the names of models.
        costs: has the prices, for the strategy ``cheapest``.
        pace: for the strategy ``fastest``.

    Raises:
        InvalidSettings: an alias could be taken for a provider.
    """

    def __init__(self, settings: Settings, providers: Providers, costs: Costs, pace: Pace) -> None:
        check_aliases(settings, providers)
        self._providers = providers
        self._costs = costs
        self._pace = pace
        self._default = settings.default_model_name()
        self.aliases: Mapping[str, AliasEntry] = settings.aliases

    async def route(self, name: str | None, *, local_only: bool = False) -> Route:
        """Return the models that ``name`` (None: the default) stands for, in the order in which they are tried.

        Raises:
            ModelNotFound: no provider has it.
            ApiKeyNotFound: it is at a service that needs a key, and there is none.
            UnsupportedFeature: it is at a service that cannot be called.
            LocalOnly: the request must stay on this machine, and the model is elsewhere.
        """
        asked = name or self._default
        entry = self.aliases.get(asked) if asked else None
        if asked is None or entry is None:
            model = await self._providers.resolve(name)
            if local_only and not model.is_local:
                raise await self._not_local(f"{model.full_name} is not on this machine")
            return Route(asked=name, alias=None, models=(model,))
        found, failed = await self._resolved(asked, entry)
        kept = [name for name in found if not local_only or found[name].is_local]
        if not kept:
            raise await self._not_local(f"No model of the alias {asked!r} is on this machine")
        models = [found[name] for name in await self._in_order(entry, found, kept)]
        warnings = tuple(f"{name} of the alias {asked!r} cannot be asked now: {error.title}." for name, error in failed)
        return Route(asked=name, alias=asked, models=tuple(models), warnings=warnings)

    async def _resolved(
        self, alias: str, entry: AliasEntry
    ) -> tuple[dict[str, ResolvedModel], list[tuple[str, LabError]]]:
        """Return the models of an alias as far as they can be found, and what is wrong with the others."""
        results = await asyncio.gather(*(self._found(name) for name in entry.models))
        pairs = list(zip(entry.models, results, strict=True))
        found = {name: result for name, result in pairs if isinstance(result, ResolvedModel)}
        failed = [(name, result) for name, result in pairs if isinstance(result, LabError)]
        for name, error in failed:
            logger.info("%s of the alias %s is left out: %s", name, alias, error.detail)
        if not found:
            raise failed[0][1]
        return found, failed

    async def _found(self, name: str) -> ResolvedModel | LabError:
        try:
            return await self._providers.resolve(name)
        except LabError as error:
            return error

    async def _in_order(self, entry: AliasEntry, found: Mapping[str, ResolvedModel], kept: list[str]) -> list[str]:
        if entry.strategy == "weighted":
            weights = dict(zip(entry.models, entry.weights or (), strict=True))
            kept.sort(key=lambda name: -weights[name])
            (first,) = random.choices(kept, [weights[name] for name in kept])  # noqa: S311 - no secret
            return [first, *(name for name in kept if name != first)]
        if entry.strategy == "cheapest":
            prices = {name: await self._typical_usd(found[name]) for name in kept}
            return sorted(kept, key=lambda name: float("inf") if (price := prices[name]) is None else price)
        if entry.strategy == "fastest":  # one that was not measured comes first, so that it is
            return sorted(kept, key=lambda name: self._pace.of(found[name].full_name) or 0.0)
        return kept

    async def _typical_usd(self, model: ResolvedModel) -> float | None:
        return await self._costs.typical_usd(model.provider.name, model.model, is_local=model.is_local)

    async def _not_local(self, what: str) -> LocalOnly:
        names = []
        for listed in await self._providers.list_models():
            model = await self._found(listed.full_name)
            if isinstance(model, ResolvedModel) and model.is_local and not listed.stale:
                names.append(listed.full_name)
            if len(names) == _NAMED_MODELS:
                break
        choice = f"Choose a local model, such as {' or '.join(names)}" if names else "Choose a local model"
        return LocalOnly(
            f"{what}, and what is local-only must not leave it. {choice}; GET /v1/models lists what there is.",
            param="model",
        )
