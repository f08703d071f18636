"""``ai-lab keys``, ``vault`` and ``token`` as a person meets them: on a server that wants a token, and without one."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner, Result

from ai_lab.cli.command import app
from tests.cli.command import COMMAND
from tests.cli.terminal import Terminal
from tests.fakes.key_service import KeyService
from tests.security.canary import holds_secret, new_secret
from tests.server import ServerProcess, environment, free_port, working_folder

KEY = Fernet.generate_key()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Give a server that made its token itself, in the folder where clients of this user look for it."""
    data = tmp_path_factory.mktemp("keys") / "data"
    settings = {"AI_LAB_REQUIRE_TOKEN": "1", "AI_LAB_ALLOWED_ADDRESSES": "127.0.0.1"}
    with ServerProcess(data, settings=settings) as server:
        yield server


class Person:
    """Somebody at the command line, with settings of their own; nothing they are shown may hold a secret."""

    def __init__(self, data: Path, port: int, patch: pytest.MonkeyPatch) -> None:
        self.data = data
        self.settings = {"API_PORT": str(port), "AI_LAB_ALLOWED_ADDRESSES": "127.0.0.1"}
        patch.chdir(working_folder(data))
        patch.delenv("AI_LAB_CONFIG_DIR")
        for name, value in (environment(data) | self.settings).items():
            patch.setenv(name, value)

    @property
    def config(self) -> Path:
        return self.data / ".config" / "ai-lab"

    def types(self, *arguments: str, given: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=given, prog_name="ai-lab")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert not holds_secret(result.output.encode()), result.output
        return result


@pytest.fixture
def at_server(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(server.data_dir, server.port, monkeypatch)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Give somebody whose server does not run."""
    return Person(tmp_path / "data", free_port(), monkeypatch)


async def test_a_key_is_added_listed_tested_and_removed(at_server: Person, server: ServerProcess) -> None:
    secret = new_secret()

    async def types(*arguments: str, given: str | None = None) -> Result:
        return await asyncio.to_thread(at_server.types, *arguments, given=given)

    async with KeyService("custom", secret) as service:
        stdin = ("--base-url", service.base_url, "--stdin")
        added = await types("keys", "add", "mine", *stdin, given=f"{secret}\n")
        assert added.exit_code == 0
        assert added.stderr == f"It is used at {service.base_url} and goes nowhere else.\n"
        stored, tested = added.stdout.splitlines()
        assert "mine" in stored
        assert tested.startswith("works  mine: ")
        wrong = await types("keys", "add", "mine", "--label", "wrong", *stdin, given=new_secret())
        assert wrong.exit_code == 1
        assert "does not work  mine (wrong): " in wrong.stdout
        everything = await types("keys", "test")
        assert everything.exit_code == 1
        assert everything.stdout.count("work") == 2
        assert (await types("keys", "test", "mine", "--label", "default")).exit_code == 0
    gone = await types("keys", "test", "mine", "--label", "default")
    assert (gone.exit_code, "unreachable" in gone.stdout) == (1, True)
    assert gone.stdout.startswith("cannot tell  mine: ")

    listed = await types("keys", "list")
    rows = [line.split() for line in listed.stdout.splitlines() if "mine" in line]
    assert [(row[1], row[3]) for row in rows] == [("default", "active"), ("wrong", "active")]
    assert max(map(len, listed.stdout.splitlines())) < 200
    as_json = json.loads((await types("keys", "list", "--json")).stdout)
    assert {key["label"] for key in as_json["keys"]} == {"default", "wrong"}

    unasked = await types("keys", "remove", "mine", "--label", "wrong")
    assert (unasked.exit_code, "--yes" in unasked.stderr) == (2, True)
    for label, said in (("default", "mine is called with its key 'wrong' now.\n"), ("wrong", "")):
        removed = await types("keys", "remove", "mine", "--label", label, "--yes")
        assert (removed.exit_code, removed.stderr) == (0, said)
    again = await types("keys", "remove", "mine", "--yes")
    assert (again.exit_code, again.stderr[:6]) == (2, "error:")
    assert "mine" not in (await types("keys", "list")).stdout
    assert "revoked" in (await types("keys", "list", "--all")).stdout
    assert not holds_secret(server.log.encode())


def test_the_prompt_shows_nothing_of_the_key(at_server: Person) -> None:
    secret = new_secret("sk-ant-api03-")
    command = [*COMMAND, "keys", "add", "anthropic", "--no-test"]
    env = environment(at_server.data, at_server.settings)
    with Terminal(command, cwd=working_folder(at_server.data), env=env) as terminal:
        terminal.wait_until_said("API key for anthropic (it will not be shown): ")
        terminal.type(f"{secret}\n".encode())
        assert terminal.ends() == 0
        assert "anthropic" in terminal.said
        assert not holds_secret(terminal.said.encode())
        assert terminal.mode == terminal.mode_before
    assert "sk-ant-" in at_server.types("keys", "list").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["openai", new_secret()],
        ["openai", "--no-test", new_secret("sk-proj-")],
        ["openai", f"--api-key={new_secret()}"],
        ["openai", "--key", new_secret()],
        [new_secret()],
        [new_secret("CANARY"), "--stdin"],
    ],
    ids=range(6),
)
def test_a_key_on_the_command_line_is_refused_without_repeating_it(alone: Person, arguments: Sequence[str]) -> None:
    result = alone.types("keys", "add", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: A key is never taken from the command line")
    assert not alone.data.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("keys add openai", "There is no terminal to ask at"),
        ("keys add openai --stdin", "error: The key is empty."),
        ("keys add opnai --stdin", "Did you mean openai?"),
        ("keys test nothing-here", "error: "),
        ("keys import", "error: Say from where"),
        ("keys import --env-file nowhere.env --key-file x", "--key-file belongs to one source"),
        ("vault reset", "All stored keys would be lost"),
        ("vault reset --i-know", "there is nothing to reset"),
        ("vault audit --anchor nonsense", "number, colon, 64 hex digits"),
        ("keys list --url 127.0.0.1:9", "No AI Lab server answers"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_remedy(at_server: Person, arguments: str, said: str) -> None:
    result = at_server.types(*arguments.split(), given="")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_the_token_it_says_where_to_get_it(
    at_server: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = at_server.types("token").stdout
    assert token.splitlines()[0] == f"Token in  {at_server.config / 'token'}"
    assert f"http://127.0.0.1:{at_server.settings['API_PORT']}/#token=" in token
    monkeypatch.setenv("AI_LAB_CONFIG_DIR", str(tmp_path / "empty"))
    for arguments in (("keys", "list"), ("vault", "status"), ("status",)):
        result = at_server.types(*arguments)
        assert result.exit_code == 2
        assert "wants a token" in " ".join(result.output.split())


def test_keys_of_earlier_tools_come_in_once(at_server: Person, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    database, config, env_file = inputs / "ai_lab.db", inputs / ".token_manager_config.json", inputs / "old.env"
    (inputs / "encryption_key.key").write_bytes(KEY)
    (inputs / ".token_manager_key").write_bytes(KEY)
    tokens = [Fernet(KEY).encrypt(new_secret().encode()) for _ in range(3)]
    with closing(sqlite3.connect(database)) as db:
        db.execute("CREATE TABLE api_keys (service_name TEXT, encrypted_key BLOB, is_active BOOLEAN)")
        db.executemany(
            "INSERT INTO api_keys VALUES (?, ?, ?)",
            [
                ("cohere", tokens[0], 1),
                ("azure", tokens[1], 1),
                ("google", Fernet(Fernet.generate_key()).encrypt(b"x"), 1),
            ],
        )
        db.commit()
    providers = [
        {"name": "Together AI", "api_key_encrypted": base64.b64encode(token).decode(), "status": status}
        for token, status in ((tokens[1], "ProviderStatus.ACTIVE"), (tokens[2], "disabled"))
    ]
    config.write_text(json.dumps({"providers": [*providers, {"name": "\x1b]0;x\x07"}]}), encoding="utf-8")
    env_file.write_text(f"OPENROUTER_API_KEY={new_secret('sk-or-v1-')}\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    missing = at_server.types("keys", "import", "--env-file", str(inputs / "nowhere.env"))
    assert (missing.exit_code, "nowhere.env: cannot be read" in missing.stdout) == (1, True)
    sources = ("--from-database", str(database), "--token-manager", str(config), "--env-file", str(env_file))

    def results(*more: str) -> list[str]:
        result = at_server.types("keys", "import", *sources, *more)
        assert result.exit_code == 1  # azure has no address, google another key, one provider none
        assert "\x1b" not in result.output
        return [line[:16].strip() for line in result.stdout.splitlines()]

    def stored() -> dict[tuple[str, str], dict[str, object]]:
        keys = json.loads(at_server.types("keys", "list", "--json").stdout)["keys"]
        return {(key["service_name"], key["label"]): key["details"] for key in keys}

    known = stored()
    refused = ["refused", "refused"]
    rehearsed = results("--dry-run")
    assert stored() == known
    assert rehearsed == [
        "would be stored",  # the env file comes first
        "would be stored",
        *refused,
        "would be stored",
        "would be stored",
        "refused",
    ]
    assert results() == [result.replace("would be stored", "stored") for result in rehearsed]
    after = stored()
    assert set(after) - set(known) == {
        ("openrouter", "default"),
        ("cohere", "default"),
        ("together", "default"),
        ("together", "token-manager"),
    }
    assert after["together", "token-manager"] == {"imported_from": "token-manager", "status": "disabled"}
    assert results() == [result.replace("would be stored", "already there") for result in rehearsed]
    assert results("--dry-run") == results()
    assert stored() == after
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before


def test_a_rotation_is_followed_and_the_audit_verified(at_server: Person) -> None:
    rotated = at_server.types("keys", "rotate", "--wait")
    assert rotated.exit_code == 0
    assert "have moved" in rotated.stdout
    assert "Root key" in at_server.types("vault", "rekey").stdout
    status = json.loads(at_server.types("vault", "status", "--json").stdout)
    assert status["state"] == "open"
    verified = at_server.types("vault", "audit", "--verify")
    assert verified.exit_code == 0
    assert "The audit is intact" in verified.stdout
    shown = at_server.types("vault", "audit", "-n", "3")
    assert "rekey_finished" in shown.stdout
    (finished,) = (line for line in shown.stdout.splitlines() if "rekey_finished" in line)
    entry = json.loads(at_server.types("vault", "audit", "-n", "1", "--json").stdout)
    assert finished.rstrip().endswith(f"root key {entry['details']['root_key']}")
    entries = at_server.types("vault", "audit", "-n", "150", "--json").stdout.splitlines()
    assert len(entries) == json.loads(entries[0])["sequence"]


def test_without_a_server_this_process_has_the_vault_and_a_lost_root_key_is_told(alone: Person) -> None:
    added = alone.types("keys", "add", "openai", "--stdin", "--no-test", given=new_secret("sk-proj-"))
    assert added.exit_code == 0
    assert added.stderr.startswith("No server at http://127.0.0.1:")
    assert "all 1 keys have moved" in alone.types("keys", "rotate").stdout
    head = json.loads(alone.types("vault", "status", "--json").stdout)["audit_head"]
    assert alone.types("vault", "audit", "--anchor", head).exit_code == 0

    (root_key,) = alone.config.glob("master*.key")
    root_key.rename(alone.config / "elsewhere")
    sealed = alone.types("vault", "status")
    assert sealed.exit_code == 1
    assert "Remedy" in sealed.stdout
    listed = alone.types("keys", "list")
    assert (listed.exit_code, "openai" in listed.stdout, "The vault is sealed" in listed.stderr) == (0, True, True)
    for arguments in (("keys", "rotate"), ("keys", "remove", "openai", "--yes"), ("vault", "rekey")):
        assert alone.types(*arguments).exit_code == 2

    assert alone.types("vault", "reset", "--i-know").exit_code == 0
    lost = alone.types("keys", "list")
    assert "unreadable" in lost.stdout
    assert "Enter it again" in lost.stderr
    again = alone.types("keys", "add", "openai", "--stdin", "--no-test", given=new_secret("sk-proj-"))
    assert again.exit_code == 0

    with closing(sqlite3.connect(alone.data / "ai_lab.sqlite")) as db:
        ((newest,),) = db.execute("SELECT max(sequence) FROM vault_audit").fetchall()
        db.execute("UPDATE vault_audit SET actor = 'somebody' WHERE sequence = ?", (newest,))
        db.commit()
    tampered = alone.types("vault", "audit", "--verify")
    assert (tampered.exit_code, f"NOT intact from entry {newest} on" in tampered.stdout) == (1, True)


def test_a_key_that_can_be_read_on_the_way_is_warned_about(alone: Person) -> None:
    stdin = ("--stdin", "--no-test", "--base-url")
    added = alone.types("keys", "add", "mine", *stdin, "http://models.example.com/v1", given=new_secret())
    assert (added.exit_code, "warning: The address begins with http: " in added.stderr) == (0, True)


def test_a_key_of_the_environment_is_not_removed_and_where_it_is_gets_told(
    alone: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", new_secret("sk-proj-"))
    refused = alone.types("keys", "remove", "openai", "--yes")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "OPENAI_API_KEY in the environment or .env is used: take it out there." in refused.stderr


def test_a_new_token_takes_the_place_of_the_old_one(alone: Person) -> None:
    assert alone.types("token").exit_code == 1
    first, second = (alone.types("token", "--new") for _ in range(2))
    assert first.stdout != second.stdout
    assert "Start the server again" in second.stderr
    # A server that was started with --require-token wants it: only the settings are known here.
    assert second.stderr.startswith("As the settings are, ")
    assert (alone.config / "token").stat().st_mode & 0o777 == 0o600
