"""What OpenAI's clients call: models, stateless chat completions, embeddings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from ai_lab.errors import ModelNotFound, UnsupportedFeature
from ai_lab.providers import ListedModel
from backend.answer_headers import CacheHeader, LocalOnlyHeader, answer_headers, trace_parent_of
from backend.deps import LabDep
from backend.openai_answers import ChatCompletion, Embedding, EmbeddingList, Model, ModelList
from backend.openai_requests import CompletionRequest, EmbeddingRequest
from backend.openai_translation import answer_events, chat_request, embedding_usage, vector, whole_answer
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
    """List the aliases and the models of all providers."""
    aliases = [_alias(name) for name in lab.gateway.aliases()]
    return ModelList(data=aliases + [_model(listed) for listed in await lab.providers.list_models()])


@router.get("/models/{model:path}")
async def get_model(model: ModelPath, lab: LabDep) -> Model:
    """Return one model."""
    if model in lab.gateway.aliases():
        return _alias(model)
    name = (await lab.providers.resolve(model)).full_name
    for listed in await lab.providers.list_models():
        if listed.full_name == name:
            return _model(listed)
    raise ModelNotFound(f"The provider of {name!r} does not answer, and {name!r} is not in its last list.")


@router.post("/chat/completions", response_model=ChatCompletion, responses=_STREAM)
async def create_chat_completion(
    body: CompletionRequest,
    lab: LabDep,
    request: Request,
    *,
    cache: CacheHeader = "on",
    local_only: LocalOnlyHeader = "false",
) -> Response:
    """Answer a chat that the client keeps; nothing of it is saved here."""
    is_local_only = bool(body.local_only) or local_only == "true"
    completion = lab.completions.start(
        await lab.gateway.route(body.model, local_only=is_local_only),
        chat_request(body),
        use_cache=body.use_cache is not False and cache == "on",
        local_only=is_local_only,
        trace_parent=trace_parent_of(request),
    )
    request.state.call = completion.call
    watching = await cancel_when_gone(request, completion.cancel)
    streams = False
    try:
        if not body.stream:
            answer = whole_answer(completion.call, await completion.result())
            # As bytes: FastAPI would check our own answer once more.
            return Response(
                answer.model_dump_json(), media_type="application/json", headers=answer_headers(completion.call)
            )
        # Until something comes, a failure can still have its own status; but silence must not last for ever.
        await completion.begin(HEARTBEAT_SECONDS)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        events = answer_events(completion, include_usage=include_usage, request_id=request.state.request_id)
        streams = True
        return EventStream(events, completion.cancel, headers=answer_headers(completion.call))
    finally:
        watching.cancel()
        if not streams:
            completion.cancel()


@router.post("/embeddings")
async def create_embeddings(
    body: EmbeddingRequest,
    lab: LabDep,
    request: Request,
    *,
    response: Response,
    local_only: LocalOnlyHeader = "false",
) -> EmbeddingList:
    """Turn texts into vectors, with a model that can."""
    is_local_only = bool(body.local_only) or local_only == "true"
    route = await lab.gateway.route(body.model, local_only=is_local_only)
    if body.dimensions is not None:
        raise UnsupportedFeature("Vectors have the length that the model gives them. Leave it out.", param="dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    embedding = lab.completions.embed(route, texts, local_only=is_local_only, trace_parent=trace_parent_of(request))
    request.state.call = embedding.call
    watching = await cancel_when_gone(request, embedding.cancel)
    try:
        made = await embedding.result()
    finally:
        watching.cancel()
        embedding.cancel()
    response.headers.update(answer_headers(embedding.call))
    return EmbeddingList(
        data=[
            Embedding(index=index, embedding=vector(numbers, body.encoding_format))
            for index, numbers in enumerate(made.vectors)
        ],
        model=embedding.model.full_name,
        usage=embedding_usage(made.usage),
    )


def _alias(name: str) -> Model:
    return Model(id=name, created=0, owned_by="alias", stale=False, context_tokens=None)


def _model(listed: ListedModel) -> Model:
    changed_at = listed.info.modified_at
    return Model(
        id=listed.full_name,
        created=int(changed_at.timestamp()) if changed_at else 0,
        owned_by=listed.provider,
        stale=listed.stale,
        context_tokens=listed.info.context_tokens,
    )
