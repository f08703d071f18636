"""Export and import by HTTP."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ai_lab.conversations import NewMessage
from ai_lab.settings import Settings
from tests.lab_server import LabServer, serve_lab

LINE = '{"session_id": "%s", "messages": [{"role": "user", "content": "Hi"}]}\n'


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LabServer]:
    async with serve_lab(Settings(data_dir=tmp_path, ollama_host="http://127.0.0.1:9", database_url=None)) as server:
        yield server


@pytest.fixture
async def client(server: LabServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "media_type", "ending"),
    [
        ("markdown", "text/markdown; charset=utf-8", "md"),
        ("json", "application/json", "json"),
        ("jsonl", "application/x-ndjson", "jsonl"),
    ],
)
async def test_an_export_is_a_file_with_a_safe_name(
    server: LabServer, client: httpx.AsyncClient, kind: str, media_type: str, ending: str
) -> None:
    session_id = 'a"; filename="ö\u2028..x'
    await server.lab.conversations.append(session_id, NewMessage(role="user", content="größer"))
    answer = await client.get(f"/conversations/{session_id}/export", params={"format": kind})
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"] == f'attachment; filename="conversation-a_filename_x.{ending}"'
    assert "größer" in answer.content.decode()


async def test_what_is_not_there_or_not_known_is_no_file(client: httpx.AsyncClient) -> None:
    assert (await client.get("/conversations/none/export")).json()["code"] == "conversation_not_found"
    assert (await client.get("/conversations/none/export?format=pdf")).status_code == 422
    assert (await client.get("/export/conversations?format=markdown")).status_code == 422


async def test_sessions_named_like_our_addresses_can_be_used(client: httpx.AsyncClient) -> None:
    for name in ("export", "import"):
        await client.post("/conversations", json={"session_id": name})
        assert (await client.get(f"/conversations/{name}")).json()["session_id"] == name
        assert (await client.get(f"/conversations/{name}/export?format=json")).json()["session_id"] == name
        assert (await client.delete(f"/conversations/{name}")).status_code == 204


async def test_a_large_conversation_is_sent_in_blocks_and_comes_back(client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": f"{number} {'x' * 1000}"} for number in range(1000)]
    body = json.dumps({"session_id": "large", "messages": messages})
    answer = await client.post("/import/conversations", content=body, headers={"content-type": "application/json"})
    assert answer.json()["imported"] == ["large"]
    async with client.stream("GET", "/export/conversations") as export:
        assert "content-length" not in export.headers
        lines = (await export.aread()).decode().splitlines()
    assert [message["content"] for message in json.loads(lines[0])["messages"]] == [m["content"] for m in messages]


async def test_the_report_names_what_was_wrong(client: httpx.AsyncClient) -> None:
    async def post(body: str, media_type: str = "application/x-ndjson; charset=utf-8") -> httpx.Response:
        return await client.post("/import/conversations", content=body, headers={"content-type": media_type})

    mixed = await post(LINE % "a" + "{\n" + LINE % "b")
    assert mixed.status_code == 200
    assert mixed.json() == {
        "imported": ["a", "b"],
        "skipped": [],
        "renamed": [],
        "failed": [{"position": "line 2, column 1", "reason": mixed.json()["failed"][0]["reason"]}],
    }
    nothing = await post("{\n")
    assert (nothing.status_code, nothing.json()["code"]) == (422, "source_damaged")
    assert "line 1, column 1" in nothing.json()["detail"]
    assert (await post("")).json() == {"imported": [], "skipped": [], "renamed": [], "failed": []}
    other = await post(LINE % "a", "text/csv")
    assert (other.status_code, other.json()["code"]) == (415, "unsupported_media_type")
    too_long = await post(" " * (32 * 1024 * 1024 + 1))
    assert (too_long.status_code, too_long.json()["code"]) == (413, "content_too_large")
