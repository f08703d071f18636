"""The only door to a model: finds the way, begins calls and streams their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from ai_lab.clock import monotonic_ms, new_id, now
from ai_lab.gateway.call import Call, MakeRequest, Route, Source, TraceParent
from ai_lab.gateway.pace import Pace
from ai_lab.gateway.pipeline import Observer, Parts, Pipeline
from ai_lab.gateway.route import Router
from ai_lab.logging.context import request_ids
from ai_lab.providers import Chunk, Providers
from ai_lab.settings import Settings
from ai_lab.settings.entries import AliasEntry


class Gateway:
    """Many services behind one door.

    Args:
        settings: of the lab.
        providers: have the models.
        parts: what the policies keep their state in; whoever made them closes them.
        observe: is told of what happens.

    Raises:
        InvalidSettings: an alias could be taken for a provider.
    """

    def __init__(self, settings: Settings, providers: Providers, parts: Parts, *, observe: Observer) -> None:
        pace = Pace()
        self._router = Router(settings, providers, parts.costs, pace)
        self._pipeline = Pipeline.of(settings, parts, pace=pace, observe=observe)
        self._deadline_seconds = settings.deadline_seconds

    def aliases(self) -> Mapping[str, AliasEntry]:
        """Return the names that stand for lists of models."""
        return self._router.aliases

    async def route(self, name: str | None, *, local_only: bool = False) -> Route:
        """Return the models that ``name`` (an alias or a model; None: the default) stands for.

        Args:
            name: as it was asked for.
            local_only: leave out models that are not on this machine.

        Raises:
            ModelNotFound: no provider has it.
            ApiKeyNotFound: it is at a service that needs a key, and there is none.
            UnsupportedFeature: it is at a service that cannot be called.
            LocalOnly: no model of that name is on this machine.
        """
        return await self._router.route(name, local_only=local_only)

    def begin(
        self,
        route: Route,
        make_request: MakeRequest,
        *,
        source: Source,
        use_cache: bool = True,
        local_only: bool = False,
        request_id: str | None = None,
        session_id: str | None = None,
        message_id: str | None = None,
        trace_parent: TraceParent | None = None,
        texts: Sequence[str] | None = None,
    ) -> Call:
        """Return a new call; its time runs from now on.

        Args:
            route: from ``route``.
            make_request: see ``MakeRequest``.
            source: what asks.
            use_cache: whether a stored answer will do.
            local_only: nothing of it may leave this machine.
            request_id: default: of the request that is answered here.
            session_id: of the conversation.
            message_id: of the answer's message.
            trace_parent: of the caller.
            texts: to embed, instead of a chat.
        """
        ids = request_ids.get()
        return Call(
            id=new_id(),
            route=route,
            make_request=make_request,
            source=source,
            started_at=now(),
            started_ms=monotonic_ms(),
            deadline=asyncio.get_running_loop().time() + self._deadline_seconds,
            use_cache=use_cache,
            local_only=local_only,
            texts=None if texts is None else tuple(texts),
            request_id=request_id or (ids and ids.request_id),
            session_id=session_id,
            message_id=message_id,
            trace_parent=trace_parent,
            warnings=list(route.warnings),
        )

    def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Return the answer as it is made; closing it stops the work upstream.

        An embedding is a stream of one chunk, which has ``vectors``.

        Raises:
            LabError: what went wrong, after all attempts at all models.
        """
        return self._pipeline.door.stream(call)

    async def close(self) -> None:
        """End the answers that several requests share."""
        await self._pipeline.caching.close()
