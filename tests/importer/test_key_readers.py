"""Keys of earlier tools as rows: everything readable, and for the rest a reason that holds no secret."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ai_lab.errors import DatabaseUnusable, SourceDamaged
from ai_lab.importer.keys import (
    Found,
    Row,
    Unreadable,
    earlier_lab_keys,
    env_file_keys,
    environment_keys,
    token_manager_keys,
)
from ai_lab.settings import Settings
from ai_lab.shapes import JsonObject
from tests.security.canary import new_secret

KEY = Fernet.generate_key()
JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(JsonObject)


def encrypted(secret: str, key: bytes = KEY) -> bytes:
    return Fernet(key).encrypt(secret.encode())


def twice(secret: str, key: bytes = KEY) -> str:
    """Return it as the AI Token Manager writes it: base64 of what is base64 already."""
    return base64.b64encode(encrypted(secret, key)).decode()


def told(rows: list[Row]) -> list[tuple[str, str]]:
    """Return (service, secret) of what was found."""
    return [(row.service_name, row.secret.get_secret_value()) for row in rows if isinstance(row, Found)]


def reasons(rows: list[Row]) -> list[str]:
    return [f"{row.where}: {row.reason}" for row in rows if isinstance(row, Unreadable)]


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for sources, and see that it is afterwards as the test made it."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    yield folder
    assert not [path for path in folder.iterdir() if path.name.endswith(("-wal", "-shm", "-journal"))]


def state(folder: Path) -> dict[str, tuple[str, int]]:
    return {path.name: (sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# -- the earlier AI-Lab ------------------------------------------------------------------------------------------------


def earlier_database(folder: Path, rows: list[tuple[Any, Any, Any]], column: str = "encrypted_key BLOB") -> Path:
    path = folder / "ai_lab.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            f"CREATE TABLE api_keys (id INTEGER PRIMARY KEY, service_name TEXT, {column}, is_active BOOLEAN, "
            "created_at DATETIME, updated_at DATETIME)"
        )
        stamps = ("2025-06-08 21:54:30.000000", None)
        db.executemany("INSERT INTO api_keys VALUES (NULL, ?, ?, ?, ?, ?)", [(*row, *stamps) for row in rows])
        db.commit()
    return path


def test_keys_of_the_earlier_lab_come_in_and_the_rest_is_told_row_by_row(inputs: Path) -> None:
    openai, anthropic, google, lost, planted = (new_secret() for _ in range(5))
    damaged = bytearray(encrypted(new_secret()))
    damaged[40] ^= 1
    path = earlier_database(
        inputs,
        [
            ("openai", encrypted(openai), 1),
            ("Anthropic", encrypted(anthropic).decode(), 0),
            ("google", encrypted(google), None),
            ("cohere", encrypted(lost, Fernet.generate_key()), 1),
            ("huggingface", planted, 1),
            ("azure", bytes(damaged), 1),
            ("mistral", encrypted(new_secret()), 1),
            (None, encrypted(new_secret()), 1),
            ("openrouter", None, 1),
            ("together", 7, 1),
            ("openai", b"x" * 2_000_000, 1),
        ],
    )
    (inputs / "encryption_key.key").write_bytes(KEY)
    before = state(inputs)
    rows = list(earlier_lab_keys(path, None))
    assert state(inputs) == before
    assert told(rows) == [("openai", openai), ("anthropic", anthropic), ("google", google)]
    first, inactive, _ = [row for row in rows if isinstance(row, Found)]
    assert first.details == {"imported_from": "ai-lab-db", "created_at": "2025-06-08 21:54:30.000000"}
    assert inactive.details["is_active"] is False
    assert inactive.remarks == ("it was switched off there",)
    lines = reasons(rows)
    assert [line.split(":")[0] for line in lines] == [
        "api_keys row 4 (cohere)",
        "api_keys row 5 (huggingface)",
        "api_keys row 6 (azure)",
        "api_keys row 7 (mistral)",
        "api_keys row 8",
        "api_keys row 9 (openrouter)",
        "api_keys row 10 (together)",
        "api_keys row 11",
    ]
    assert "another key than the one in" in lines[0]
    assert "not encrypted" in lines[1]
    assert "changed" in lines[2]
    assert "CANARY" not in repr(rows) + str(rows) + "".join(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "encryption_key.key is missing"), (b"no key", "holds no Fernet key"), (b"\xff" * 9000, "holds no Fernet")],
)
def test_without_its_key_file_every_row_says_so(inputs: Path, content: bytes | None, said: str) -> None:
    path = earlier_database(inputs, [("openai", encrypted(new_secret()), 1), ("cohere", encrypted(new_secret()), 1)])
    if content is not None:
        (inputs / "encryption_key.key").write_bytes(content)
    lines = reasons(list(earlier_lab_keys(path, None)))
    assert [said in line and "--key-file" in line for line in lines] == [True, True]


def test_another_key_file_and_a_plain_column_are_read(inputs: Path) -> None:
    plain, hidden = new_secret(), new_secret()
    path = earlier_database(inputs, [("openai", plain, 1), ("cohere", encrypted(hidden), 1)], "api_key TEXT")
    elsewhere = inputs / "elsewhere.key"
    elsewhere.write_bytes(KEY + b"\n")
    assert told(list(earlier_lab_keys(path, elsewhere))) == [("openai", plain), ("cohere", hidden)]


def test_no_database_is_an_error_of_the_file(inputs: Path) -> None:
    path = inputs / "ai_lab.db"
    for content in (b"", b"{}", b"\x80\x04\x95cposix\nsystem\n", b"SQLite format 3\x00" + bytes(84)):
        path.write_bytes(content)
        with pytest.raises(DatabaseUnusable):
            list(earlier_lab_keys(path, None))


# -- the AI Token Manager ----------------------------------------------------------------------------------------------


def configuration(folder: Path, content: Any) -> Path:
    path = folder / ".token_manager_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (folder / ".token_manager_key").write_bytes(KEY)
    return path


@pytest.mark.parametrize("is_object", [True, False])
def test_providers_come_in_with_their_limits(inputs: Path, is_object: bool) -> None:
    openrouter, face, together, custom = new_secret("sk-or-v1-"), new_secret("hf_"), new_secret(), new_secret()
    headers = {"Authorization": f"Bearer {openrouter}"}
    usage = {"requests": 3, "total_tokens": 90, "last_reset": "2025-10-01T10:00:00", "more": {"a": 1}, "big": 10**400}
    providers = [
        {
            "name": "OpenRouter",
            "api_key_encrypted": twice(openrouter),
            "base_url": "https://openrouter.ai/api/v1",
            "headers": headers,
            "rate_limit": 1000,
            "token_limit": 100000,
            "status": "ProviderStatus.ACTIVE",
            "usage": usage,
        },
        {
            "name": "Hugging Face",
            "api_key": face,
            "base_url": "https://api-inference.huggingface.co",
            "status": "exhausted",
        },
        {"name": "Together AI", "api_key_encrypted": twice(together), "base_url": "https://api.together.xyz"},
        {"name": "My Lab!", "api_key_encrypted": twice(custom), "base_url": "http://10.0.0.5/v1", "status": "sleepy"},
    ]
    content: Any = {"current_provider_index": 0, "providers": providers, "more": [1]} if is_object else providers
    path = configuration(inputs, content)
    before = state(inputs)
    rows = list(token_manager_keys(path, None))
    assert state(inputs) == before
    assert told(rows) == [
        ("openrouter", openrouter),
        ("huggingface", face),
        ("together", together),
        ("my-lab", custom),
    ]
    found = [row for row in rows if isinstance(row, Found)]
    assert [row.base_url for row in found] == [None, None, None, "http://10.0.0.5/v1"]
    assert found[0].details == {
        "imported_from": "token-manager",
        "rate_limit": 1000,
        "token_limit": 100000,
        "status": "active",
        "usage": {"requests": 3, "total_tokens": 90, "last_reset": "2025-10-01T10:00:00"},
    }
    assert found[0].remarks == ("a part of its usage is no figure and stays behind",)
    assert "unencrypted" in found[1].remarks[0]
    assert found[1].details["status"] == "exhausted"
    assert found[3].details["status"] == "unknown"
    assert "CANARY" not in repr(rows) + str(rows)


def test_a_known_service_at_another_address_keeps_that_address(inputs: Path) -> None:
    provider = {"name": "OpenRouter", "api_key": new_secret(), "base_url": "https://gateway.example/v1"}
    (row,) = token_manager_keys(configuration(inputs, [provider]), None)
    assert isinstance(row, Found)
    assert row.base_url == "https://gateway.example/v1"


def test_a_token_that_was_encrypted_again_is_read_to_its_end(inputs: Path) -> None:
    secret = new_secret()
    again = twice(twice(secret))
    lost = twice(twice(secret, Fernet.generate_key()))
    bare = encrypted(secret).decode()
    providers = [{"name": "OpenAI", "api_key_encrypted": stored} for stored in (again, lost, bare)]
    rows = list(token_manager_keys(configuration(inputs, providers), None))
    assert told(rows) == [("openai", secret), ("openai", secret)]
    (line,) = reasons(rows)
    assert line.startswith("provider 2 (OpenAI): its key was changed, or encrypted with another key")


def test_a_row_that_cannot_be_read_keeps_no_other_out(inputs: Path) -> None:
    good = new_secret()
    deep = "[" * 50_000 + "]" * 50_000
    rows: list[Any] = [
        None,
        7,
        "OpenAI",
        [],
        {},
        {"name": 7, "api_key": new_secret()},
        {"name": "\x1b[31mBad\x00" + "x" * 500, "api_key": new_secret()},
        {"name": "Nobody", "api_key": new_secret()},
        {"name": "OpenAI"},
        {"name": "OpenAI", "api_key": {"__class__": "os.system", "key": new_secret()}},
        {"name": "OpenAI", "api_key": "x" * 70_000},
        {"name": "OpenAI", "api_key_encrypted": "", "api_key": None},
        {"name": "OpenAI", "api_key": good, "rate_limit": float("nan"), "usage": [1], "status": {"__class__": "x"}},
    ]
    text = json.dumps(rows)
    found = list(token_manager_keys(configuration(inputs, text), None))
    assert told(found) == [("openai", good)]
    lines = reasons(found)
    assert len(lines) == len(rows) - 1
    assert all(len(line) < 300 and line.isprintable() for line in lines)
    assert "CANARY" not in repr(found)

    broken = json.dumps([rows[-1]])[:-1] + f", {deep}]"
    found = list(token_manager_keys(configuration(inputs, broken), None))
    assert told(found) == [("openai", good)]
    assert "nested deeper" in reasons(found)[0]


@pytest.mark.parametrize("around", ["{}", "{}\n", ' "{}" ', "Bearer {}", "OPENAI_API_KEY={}"])
def test_a_key_among_the_other_fields_stays_behind(inputs: Path, around: str) -> None:
    secret = new_secret()
    stored = twice(around.format(secret))
    provider = {"name": "OpenAI", "api_key_encrypted": stored, "usage": {"last_key": secret}, "rate_limit": 7}
    (row,) = token_manager_keys(configuration(inputs, [provider]), None)
    assert isinstance(row, Found)
    assert row.details == {"imported_from": "token-manager"}
    assert row.remarks == ("its other fields hold the key too and stay behind",)


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["OpenAI", "gAAAAA", "Z0FBQUFB"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_NAMES = ("name", "api_key", "api_key_encrypted", "base_url", "rate_limit", "token_limit", "status", "usage")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_ANY | st.fixed_dictionaries({}, optional=dict.fromkeys(_NAMES, _ANY)), max_size=4))
def test_whatever_the_file_holds_each_row_is_a_key_or_a_reason(inputs: Path, rows: list[Any]) -> None:
    found = list(token_manager_keys(configuration(inputs, json.dumps(rows)), None))
    assert len(found) == len(rows)
    for row in found:
        assert isinstance(row, Unreadable) or JSON.validate_python(row.details) == row.details


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "{}",
        '{"providers": {}}',
        '{"providers": 1e999}',
        "[" * 1_000_000,
        '[{"name": "' + "x" * 34_000_000,
        '[{"name": "OpenAI", "api_key": "sk-CANARY',
        "\x00" * 100,
        "cposix\nsystem\n(S'true'\ntR.",
    ],
    ids=["empty", "null", "object", "no-list", "inf", "deep", "long-line", "cut", "nul", "pickle"],
)
def test_a_file_that_is_no_configuration_is_an_error_of_the_file(inputs: Path, content: str) -> None:
    with pytest.raises(SourceDamaged) as caught:
        list(token_manager_keys(configuration(inputs, content), None))
    assert "CANARY" not in caught.value.detail
    assert len(caught.value.detail) < 400


def test_a_missing_file_is_an_error_of_the_file(inputs: Path) -> None:
    with pytest.raises(SourceDamaged, match="cannot be read"):
        list(token_manager_keys(inputs / "nothing.json", None))
    with pytest.raises(SourceDamaged, match="cannot be read"):
        list(env_file_keys(inputs / "nothing.env"))


# -- the environment ---------------------------------------------------------------------------------------------------


def test_keys_of_an_env_file_come_in_by_name(inputs: Path) -> None:
    openai, face, azure, gateway = new_secret(), new_secret("hf_"), new_secret(), new_secret()
    path = inputs / "project.env"
    path.write_text(
        f"export OPENAI_API_KEY='{openai}'\nHF_TOKEN={face} # mine\nHUGGINGFACE_API_KEY={face}\n"
        f"AZURE_OPENAI_API_KEY={azure}\nANTHROPIC_API_KEY=\nANTHROPIC_BASE_URL=https://gateway.example\n"
        f"TOGETHER_API_KEY={gateway}\nTOGETHER_BASE_URL=https://gateway.example/v1\n"
        f"MISTRAL_API_KEY={new_secret()}\nDATABASE_PASSWORD={new_secret()}\nnot a line\n",
        encoding="utf-8",
    )
    before = state(inputs)
    rows = list(env_file_keys(path))
    assert state(inputs) == before
    assert sorted(told(rows)) == sorted([("openai", openai), ("huggingface", face), ("together", gateway)])
    (together,) = [row for row in rows if isinstance(row, Found) and row.service_name == "together"]
    assert together.base_url == "https://gateway.example/v1"
    azure_line, mistral_line = reasons(rows)
    assert azure_line.startswith("AZURE_OPENAI_API_KEY: Azure OpenAI needs its address too: set AZURE_OPENAI_ENDPOINT")
    assert mistral_line.startswith("MISTRAL_API_KEY: no service of AI Lab reads this name")
    assert "CANARY" not in repr(rows)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00OPENAI", b"x" * 2_000_000], ids=["no-text", "large"])
def test_an_env_file_that_is_none_is_an_error_of_the_file(inputs: Path, content: bytes) -> None:
    path = inputs / ".env"
    path.write_bytes(content)
    with pytest.raises(SourceDamaged):
        list(env_file_keys(path))


def test_keys_of_the_environment_are_found_where_the_settings_find_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = new_secret("sk-ant-api03-")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", secret)
    assert ("anthropic", secret) in told(list(environment_keys(Settings.load())))
