"""What OpenAI's clients call: models, stateless chat completions, embeddings."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from ai_lab.errors import ModelNotFound, RequestCancelled, UnsupportedFeature
from ai_lab.providers import ListedModel
from backend.deps import LabDep
from backend.openai_answers import ChatCompletion, Embedding, EmbeddingList, Model, ModelList
from backend.openai_requests import CompletionRequest, EmbeddingRequest
from backend.openai_translation import answer_events, chat_request, vector, whole_answer
from backend.sse import CONTENT, HEARTBEAT_SECONDS, EventStream, cancel_when_gone

router = APIRouter(prefix="/v1", tags=["openai"])
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or with `stream: true` events: chunks as OpenAI sends them, then `[DONE]`. "
        "A failure in the middle is an event with `error`, and no `[DONE]`.",
        "content": CONTENT,
    }
}
ModelPath = Annotated[str, Path(min_length=1, description="provider/model, or a bare model name.")]


@router.get("/models")
async def list_models(lab: LabDep) -> ModelList:
    """List the models of all providers."""
    return ModelList(data=[_model(listed) for listed in await lab.providers.list_models()])


@router.get("/models/{model:path}")
async def get_model(model: ModelPath, lab: LabDep) -> Model:
    """Return one model."""
    name = (await lab.providers.resolve(model)).full_name
    for listed in await lab.providers.list_models():
        if listed.full_name == name:
            return _model(listed)
    raise ModelNotFound(f"The provider of {name!r} does not answer, and {name!r} is not in its last list.")


@router.post("/chat/completions", response_model=ChatCompletion, responses=_STREAM)
async def create_chat_completion(body: CompletionRequest, lab: LabDep, request: Request) -> ChatCompletion | Response:
    """Answer a chat that the client keeps; nothing of it is saved here."""
    model = await lab.providers.resolve(body.model)
    completion = lab.completions.start(model, chat_request(body, model.model))
    watching = await cancel_when_gone(request, completion.cancel)
    streams = False
    try:
        if not body.stream:
            return whole_answer(model.full_name, await completion.result())
        # Until something comes, a failure can still have its own status; but silence must not last for ever.
        await completion.begin(HEARTBEAT_SECONDS)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = answer_events(completion, include_usage=include_usage, request_id=request.state.request_id)
        streams = True
        return EventStream(events, completion.cancel)
    finally:
        watching.cancel()
        if not streams:
            completion.cancel()


@router.post("/embeddings")
async def create_embeddings(body: EmbeddingRequest, lab: LabDep, request: Request) -> EmbeddingList:
    """Turn texts into vectors, with a model that can."""
    model = await lab.providers.resolve(body.model)
    if body.dimensions is not None:
        raise UnsupportedFeature("Vectors have the length that the model gives them. Leave it out.", param="dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    embedding = asyncio.create_task(model.embed(texts))

    def stop() -> None:
        embedding.cancel()

    watching = await cancel_when_gone(request, stop)
    try:
        await asyncio.wait({embedding})
    finally:
        watching.cancel()
        stop()
    if embedding.cancelled():
        raise RequestCancelled("The client left before the vectors were made.")
    return EmbeddingList(
        data=[
            Embedding(index=index, embedding=vector(numbers, body.encoding_format))
            for index, numbers in enumerate(embedding.result())
        ],
        model=model.full_name,
    )


def _model(listed: ListedModel) -> Model:
    changed_at = listed.info.modified_at
    return Model(
        id=listed.full_name,
        created=int(changed_at.timestamp()) if changed_at else 0,
        owned_by=listed.provider,
        stale=listed.stale,
        context_tokens=listed.info.context_tokens,
    )
