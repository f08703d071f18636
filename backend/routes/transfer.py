"""Conversations out of the lab as files, and back in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from ai_lab.conversations.entries import ImportedConversation, read_json, read_jsonl
from ai_lab.conversations.export import ExportFormat, export_conversation, export_everything
from ai_lab.conversations.restore import ImportReport, restore
from ai_lab.errors import SourceDamaged
from backend.deps import LabDep, SessionPath

router = APIRouter(tags=["conversations"])
_JSON, _JSONL = "application/json", "application/x-ndjson"
_MEDIA_TYPES: dict[ExportFormat, str] = {"markdown": "text/markdown; charset=utf-8", "json": _JSON, "jsonl": _JSONL}
_ENDINGS: dict[ExportFormat, str] = {"markdown": "md", "json": "json", "jsonl": "jsonl"}
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_LENGTH = 100


def _file(content: dict[str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "A file.", "content": content}}


_TEXT = {"schema": {"type": "string"}}
_ANY_JSON: dict[str, Any] = {"schema": {}}


def _body() -> dict[str, Any]:
    """Describe the file; it is read by hand, so that a damaged part costs no other one."""
    conversation = ImportedConversation.model_json_schema()
    conversation["properties"]["messages"]["items"] = conversation.pop("$defs")["ImportedMessage"]
    one_or_more = {"anyOf": [conversation, {"type": "array", "items": conversation}]}
    return {"required": True, "content": {_JSON: {"schema": one_or_more}, _JSONL: _TEXT}}


@router.get(
    "/conversations/{session_id}/export",
    response_class=StreamingResponse,
    responses=_file({"text/markdown": _TEXT, _JSON: _ANY_JSON, _JSONL: _TEXT}),
)
async def export_one(
    session_id: SessionPath, lab: LabDep, kind: Annotated[ExportFormat, Query(alias="format")] = "markdown"
) -> StreamingResponse:
    """Return a conversation as a file: to read (markdown), or to bring back (json, jsonl) without loss."""
    conversation = await lab.conversations.get(session_id)
    return _sent(export_conversation(lab.conversations, conversation, kind), kind, f"conversation-{session_id}")


# Not below /conversations, where "export" may be the session_id of a conversation.
@router.get(
    "/export/conversations",
    response_class=StreamingResponse,
    responses=_file({_JSON: _ANY_JSON, _JSONL: _TEXT}),
)
async def export_all(
    lab: LabDep, kind: Annotated[Literal["json", "jsonl"], Query(alias="format")] = "jsonl"
) -> StreamingResponse:
    """Return all conversations as a file: a list (json), or one on each line (jsonl, OpenAI's chat format)."""
    return _sent(export_everything(lab.conversations, kind), kind, "conversations")


@router.post("/import/conversations", openapi_extra={"requestBody": _body()})
async def import_conversations(request: Request, lab: LabDep) -> ImportReport:
    """Bring exported conversations back; what is there already is left as it is."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {_JSON, _JSONL}:
        raise HTTPException(415, f"Send {_JSON} or {_JSONL}, as an export gives it")
    data = await request.body()
    report = await restore(lab.database, read_json(data) if kind == _JSON else read_jsonl(data))
    if report.failed and not (report.imported or report.skipped or report.renamed):
        first = report.failed[0]
        raise SourceDamaged(f"{first.reason}. Nothing was imported.", origin=first.position)
    return report


def _sent(blocks: AsyncIterator[bytes], kind: ExportFormat, name: str) -> StreamingResponse:
    file_name = f"{_UNSAFE.sub('_', name)[:_NAME_LENGTH]}.{_ENDINGS[kind]}"
    headers = {"content-disposition": f'attachment; filename="{file_name}"'}
    return StreamingResponse(blocks, media_type=_MEDIA_TYPES[kind], headers=headers)
