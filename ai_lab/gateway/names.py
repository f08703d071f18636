"""Names of services that nobody has: what is misspelt would do nothing, and nobody would see it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from ai_lab.errors import InvalidRequest
from ai_lab.logging import redact_text
from ai_lab.providers import Providers
from ai_lab.providers.known_services import canonical, known_services
from ai_lab.settings import Settings

_SHOWN = 100


def unknown_names(settings: Settings, providers: Providers) -> list[str]:
    """Return a sentence with the remedy for each name of a service that no provider has; no I/O.

    None of them is an error: a key that is stored later may bring the service. Lists of models are taken as they are
    known now, because a model's own name may have a slash in it.
    """
    there = _services(providers)
    return (
        [
            f"AI_LAB_PRICES: {_shown(name)!r} names no model. Write provider/model, or provider/* for all of a service."
            for name in settings.prices
            if "/" not in name
        ]
        + [*_aliases_in_the_wrong_place(settings, providers)]
        + [
            f"{where}: no service is called {_shown(name)!r}.{_remedy(name, there)}"
            for where, name in _named(settings, providers)
            if name not in there
        ]
    )


def check_service(name: str, providers: Providers) -> None:
    """See that somebody can go by this name; no I/O.

    Raises:
        InvalidRequest: nobody does, and what is meant for them would never have an effect.
    """
    there = _services(providers)
    if name not in there:
        raise InvalidRequest(f"No service is called {_shown(name)!r}.{_remedy(name, there)}", param="service")


def _services(providers: Providers) -> set[str]:
    """Return the names of all services."""
    return {*known_services(), *providers.names()}


def _named(settings: Settings, providers: Providers) -> Iterator[tuple[str, str]]:
    """Yield each name of a service with the place where it stands."""
    for service in settings.service_limits:
        yield "AI_LAB_SERVICE_LIMITS", service
    for name in settings.prices:
        if "/" in name:
            yield f"AI_LAB_PRICES, {_shown(name)}", name.partition("/")[0]
    for where, model in _models(settings):
        service, slash, _ = model.partition("/")
        if slash and not providers.list_has(model):
            yield f"{where}, {_shown(model)}", service


def _aliases_in_the_wrong_place(settings: Settings, providers: Providers) -> Iterator[str]:
    """Yield a sentence for each bare name that is, or is nearly, an alias where none has an effect.

    Other bare names may be models of a service that does not answer yet.
    """
    for where, name in _models(settings):
        if "/" in name or providers.list_has(name):
            continue
        if name in settings.aliases:
            yield f"{where}: {_shown(name)!r} is an alias, and no alias stands in another. Name its models."
        elif near := difflib.get_close_matches(name, settings.aliases, n=1):
            yield f"{where}: no model is known as {_shown(name)!r} now. Did you mean the alias {_shown(near[0])}?"


def _models(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each name of a model with the place where it stands; a default that is an alias is as it should be."""
    for alias, entry in settings.aliases.items():
        for model in entry.models:
            yield f"AI_LAB_ALIASES, {_shown(alias)}", model
    if settings.default_model and settings.default_model not in settings.aliases:
        yield "AI_LAB_DEFAULT_MODEL", settings.default_model


def _remedy(name: str, there: set[str]) -> str:
    by_lower = {one.lower(): one for one in sorted(there)}
    near = [by_lower[canonical(name)]] if canonical(name) in by_lower else []
    near = near or [by_lower[one] for one in difflib.get_close_matches(name.lower(), by_lower, n=1)]
    if near:
        return f" Did you mean {near[0]}?"
    return " It has no effect until AI_LAB_SERVERS or a key has it."


def _shown(name: str) -> str:
    """Return a name without what somebody may have put in its place."""
    return redact_text(name, limit=_SHOWN)
