"""Give the stored answer where there is one; identical requests at the same time get one answer together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing

from ai_lab.cache import AnswerCache, CacheKey, Found
from ai_lab.cache.pieces import answer_of, pieces_of
from ai_lab.errors import LabError
from ai_lab.gateway.call import Call, Door, begins
from ai_lab.gateway.flights import Flight, Flights
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel

#: Of the time that a call has; a flight with less time than that left is not joined.
_LEAST_SHARE = 0.5


class Caching:
    """The cache in front of another door.

    What is looked for is the answer of the route's first model; what is stored is kept for the model that gave it, so
    that an answer of a fallback never passes for the first model's.

    Args:
        door: makes answers.
        cache: keeps them.
    """

    def __init__(self, door: Door, cache: AnswerCache) -> None:
        self._door = door
        self._cache = cache
        self._flights = Flights()

    async def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the stored answer, that to an identical request in the making, or a new one."""
        cache_key = await self._key(call)
        if cache_key is None:
            call.cache = "bypass" if self._cache.is_on else "off"
            chunks = self._door.stream(call)
        else:
            call.cache_key = cache_key.key
            chunks = await self._answer(call, cache_key)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def close(self) -> None:
        """End the answers in the making."""
        await self._flights.close()

    async def _key(self, call: Call) -> CacheKey | None:
        if not (self._cache.is_on and call.use_cache and call.texts is None):
            return None
        model = call.route.first
        try:
            async with asyncio.timeout_at(call.deadline):
                request = await call.request_for(model)
        except (LabError, TimeoutError):  # the door meets it again, and knows what to do about it
            return None
        return self._key_of(call, model, request)

    async def _answer(self, call: Call, cache_key: CacheKey) -> AsyncGenerator[Chunk, None]:
        # Two requests share an answer only where they may be passed on to the same models.
        identity = (cache_key.key, call.local_only, *(model.full_name for model in call.route.models))
        flight = self._joinable(call, identity)
        if flight is None:
            found = await self._cache.find(cache_key)
            flight = None if found else self._joinable(call, identity)  # one may have been begun meanwhile
            if found is None and flight is None:
                found = self._cache.recent(cache_key)  # or have ended
            if found is not None:
                return _replayed(call, found)
        if flight is not None:
            return self._joined(call, flight)
        call.cache = "miss"
        asked = call.last_request(call.route.first)

        async def keep(chunks: Sequence[Chunk]) -> None:
            model = call.answered_by
            request = call.last_request(model) if model else None
            if model is None or request is None:
                return
            # A shorter prompt or another model: another key than the one that was looked for.
            is_as_asked = model is call.route.first and request is asked
            own_key = cache_key if is_as_asked else self._key_of(call, model, request)
            answer = answer_of(model.provider.name, model.model, chunks)
            if own_key is not None and answer is not None:
                await self._cache.store(own_key, answer, session_id=call.session_id, message_id=call.message_id)

        return self._flights.start(identity, call, self._door.stream(call), keep).read()

    def _joinable(self, call: Call, identity: Hashable) -> Flight | None:
        """Return the flight to join, if it has time enough left: who joins late must not end with its deadline."""
        flight = self._flights.get(identity)
        if flight is None:
            return None
        at = asyncio.get_running_loop().time()
        return flight if flight.call.deadline - at >= _LEAST_SHARE * (call.deadline - at) else None

    async def _joined(self, call: Call, flight: Flight) -> AsyncGenerator[Chunk, None]:
        """Yield the answer to an identical request; whose it is and what it cost stays with that one."""
        call.cache = "joined"
        last: Chunk | None = None
        async with aclosing(flight.read(deadline=call.deadline)) as chunks:
            async for chunk in chunks:
                if call.answered_by is None and begins(chunk):
                    call.answered_by = flight.call.answered_by
                    call.warnings += [said for said in flight.call.warnings if said not in call.warnings]
                last = chunk
                yield chunk
        self._cache.joined(last.usage if last else None)

    def _key_of(self, call: Call, model: ResolvedModel, request: ChatRequest) -> CacheKey | None:
        address: str | None = getattr(model.provider, "address", None)  # those inside this process have none
        return self._cache.key_of(
            model.provider.name, model.model, request, address=address, is_local_only=call.local_only
        )


async def _replayed(call: Call, found: Found) -> AsyncGenerator[Chunk, None]:
    """Yield a stored answer as its model would; nothing is paid for it, so that the call has no attempts."""
    call.cache, call.cache_key = found.kind, found.key
    call.similarity, call.original_question = found.similarity, found.original_question
    call.answered_by = call.route.first  # a key is found only under its own model
    for chunk in pieces_of(found.answer):
        yield chunk
