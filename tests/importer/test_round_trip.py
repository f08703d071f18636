"""Whatever a message holds, it comes out as it went in."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from ai_lab.conversations import Conversations, Message
from ai_lab.database import Database
from ai_lab.importer.earlier_json import conversation_file
from ai_lab.importer.service import Importer, Outcome
from ai_lab.importer.text_file import ignore_bytes

any_text = st.text(st.characters(codec=None))  # NUL and half surrogates too
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - as hypothesis wants it
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": any_text, "timestamp": moments},
    optional={"thought_process": any_text, "note": any_text, "figures": st.lists(st.integers() | st.floats(0, 1))},
)


def stored(text: str) -> str:
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(said=st.lists(messages, min_size=1, max_size=8), is_ascii=st.booleans())
def test_messages_come_out_as_they_went_in(
    tmp_path: Path, database_url: str, said: list[dict[str, Any]], is_ascii: bool
) -> None:
    path = tmp_path / "session.json"
    text = json.dumps(
        [message | {"timestamp": message["timestamp"].isoformat()} for message in said], ensure_ascii=True
    )
    if not is_ascii:  # half surrogates can only stand in a file as escapes
        text = json.dumps(json.loads(re.sub(r"\\ud[89a-f]..", r"\\ufffd", text)), ensure_ascii=False)
        said = [{k: stored(v) if isinstance(v, str) else v for k, v in message.items()} for message in said]
        text = json.dumps([m | {"timestamp": m["timestamp"].isoformat()} for m in said], ensure_ascii=False)
    path.write_text(text, encoding="utf-8")

    async def go() -> tuple[Outcome, Outcome, list[Message]]:
        database = Database(make_url(database_url), pooled=False)
        (source,) = conversation_file(path, ignore_bytes)
        source.session_id = f"s-{hash(text)}"
        importer = Importer(database)
        first, second = await importer.bring_in(source, "test"), await importer.bring_in(source, "test")
        kept = [message async for message in Conversations(database).all_messages(first.session_id)]
        await database.close()
        return first, second, kept

    _first, second, kept = asyncio.run(go())
    assert second.action == "known"
    assert [(m.role, m.content, m.created_at) for m in kept] == [
        (m["role"], stored(m["content"]), m["timestamp"]) for m in said
    ]
    assert [m.thought_process or "" for m in kept] == [stored(m.get("thought_process", "")) for m in said]
    for message, original in zip(kept, said, strict=True):
        extra = {k: original[k] for k in ("note", "figures") if k in original}
        assert (message.extra or {}) == {k: stored(v) if isinstance(v, str) else v for k, v in extra.items()}
