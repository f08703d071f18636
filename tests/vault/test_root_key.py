"""Where root keys come from, which are refused, and what the refusal says to do."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from pydantic import SecretStr

from ai_lab.settings import Settings
from ai_lab.vault.root_key import RootKey, find_root_key, make_root_key, parse, previous_root_key
from ai_lab.vault.root_key_file import write_once
from ai_lab.vault.sealing import Sealed

_SALT = b"s" * 16
_FERNET = Fernet.generate_key().decode()
_BYTES = base64.urlsafe_b64decode(_FERNET)


def _settings(tmp_path: Path, **values: object) -> Settings:
    return Settings(**{"config_dir": tmp_path / "config"} | values)  # type: ignore[arg-type]  # by field name


def _write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "text",
    [
        _FERNET,
        _FERNET + "\n",
        _FERNET + "\r\n",
        f'"{_FERNET}"',
        f"'{_FERNET}'\n",
        f"\ufeff  {_FERNET}\t",
        _BYTES.hex(),
        _BYTES.hex().upper() + "\n",
    ],
)
def test_a_raw_key_may_be_surrounded_by_what_editors_and_shells_leave(text: str) -> None:
    assert parse(text, _SALT, "ENCRYPTION_KEY") == _BYTES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CANARY-secret",
        "CANARY" * 50,
        _FERNET[:-1],
        _FERNET + "x",
        _BYTES.hex()[:-2],
        _BYTES.hex() + "00",
        "passphrase:CANARYshort",
        "PASSPHRASE:CANARY long enough",
        "0" * 64,
        "ab" * 32,
        base64.urlsafe_b64encode(b"x" * 32).decode(),
        "x" * 43 + "=",
    ],
)
def test_anything_that_could_be_guessed_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Sealed) as refused:
        parse(text, _SALT, "ENCRYPTION_KEY")
    assert "ENCRYPTION_KEY" in refused.value.reason
    assert refused.value.remedy
    assert not text or text not in str(refused.value)


def test_a_passphrase_is_stretched_with_the_stored_salt() -> None:
    key = parse("passphrase:CANARY correct horse\n", _SALT, "ENCRYPTION_KEY")
    expected = Scrypt(_SALT, length=32, n=2**17, r=8, p=1).derive(b"CANARY correct horse")
    assert key == expected


def test_a_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    made = find_root_key(settings, _SALT, ())
    file = tmp_path / "config" / "master.key"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert find_root_key(settings, _SALT, ()) == made
    assert find_root_key(settings, _SALT, [made.id]) == made
    assert list(file.parent.iterdir()) == [file]
    assert made.key.hex() not in repr(made)


def test_where_a_setting_hides_the_file_that_fits_the_remedy_names_it(tmp_path: Path) -> None:
    made = find_root_key(_settings(tmp_path), _SALT, ())
    with pytest.raises(Sealed) as sealed:
        find_root_key(_settings(tmp_path, encryption_key=SecretStr(_FERNET)), _SALT, [made.id])
    assert sealed.value.remedy == (
        f"The root key that fits lies in {made.source}: unset ENCRYPTION_KEY to use it, or set ENCRYPTION_KEY_PREVIOUS "
        "to what it holds to move to the new one. Then start AI Lab again."
    )
    with pytest.raises(Sealed) as lost:
        find_root_key(_settings(tmp_path, encryption_key=SecretStr(_FERNET)), _SALT, ["0" * 16])
    assert "vault reset" in lost.value.remedy
    assert lost.value.remedy.count("start AI Lab again") == 1


def test_a_new_file_never_replaces_an_old_one(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    first, second = make_root_key(settings), make_root_key(settings)
    assert Path(second.source).name == f"master-{second.id}.key"
    assert find_root_key(settings, _SALT, [second.id, first.id]) == second
    assert find_root_key(settings, _SALT, [first.id]) == first
    assert not write_once(Path(first.source), "other")
    assert find_root_key(settings, _SALT, [first.id]) == first


def test_no_file_is_made_where_keys_are_stored(tmp_path: Path) -> None:
    with pytest.raises(Sealed, match="There is no root key") as refused:
        find_root_key(_settings(tmp_path), _SALT, ["0123456789abcdef"])
    assert "0123456789abcdef" in refused.value.remedy
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666])
def test_a_file_that_others_may_read_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    settings = _settings(tmp_path)
    made = find_root_key(settings, _SALT, ())
    file = Path(made.source)
    file.chmod(mode)
    with pytest.raises(Sealed) as refused:
        find_root_key(settings, _SALT, [made.id])
    assert f"mode {mode:03o}" in refused.value.reason
    command = refused.value.remedy.removeprefix("Run: ").removesuffix(", then start AI Lab again.")
    subprocess.run(["sh", "-c", command], check=True)  # noqa: S607 - what the text says to do
    assert find_root_key(settings, _SALT, [made.id]) == made


def test_a_folder_in_which_others_may_write_is_refused(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    made = find_root_key(settings, _SALT, ())
    (tmp_path / "config").chmod(0o770)
    with pytest.raises(Sealed, match="chmod 700"):
        find_root_key(settings, _SALT, [made.id])
    other = _settings(tmp_path, config_dir=tmp_path / "open")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Sealed, match="chmod 700"):  # at the first start, not at the second
        find_root_key(other, _SALT, ())


def test_an_old_file_that_is_damaged_does_not_hide_the_one_that_fits(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    first, second = make_root_key(settings), make_root_key(settings)
    Path(first.source).chmod(0o644)
    assert find_root_key(settings, _SALT, [second.id]) == second
    with pytest.raises(Sealed, match="can be read by other users"):
        find_root_key(settings, _SALT, ())


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b"x" * 5000])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    file = _write(tmp_path / "secrets" / "key", "")
    file.write_bytes(content)
    with pytest.raises(Sealed, match=str(file)):
        find_root_key(_settings(tmp_path, encryption_key_file=file), _SALT, ())


def test_a_named_file_that_is_missing_is_named_and_not_made(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "key"
    with pytest.raises(Sealed, match=str(file)):
        find_root_key(_settings(tmp_path, encryption_key_file=file), _SALT, ())
    assert not file.parent.exists()


def test_a_named_file_of_root_that_nobody_can_write_may_be_readable(tmp_path: Path) -> None:
    file = _write(tmp_path / "secrets" / "key", _FERNET, 0o444)
    settings = _settings(tmp_path, encryption_key_file=file)
    if os.geteuid() == 0:
        assert find_root_key(settings, _SALT, ()).key == _BYTES
    file.chmod(0o644)
    with pytest.raises(Sealed, match="chmod 600"):
        find_root_key(settings, _SALT, ())


def test_the_first_source_that_is_set_is_used(tmp_path: Path) -> None:
    file = _write(tmp_path / "secrets" / "key", _FERNET)
    other = Fernet.generate_key().decode()
    both = _settings(tmp_path, encryption_key_file=file, encryption_key=SecretStr(other))
    assert find_root_key(both, _SALT, ()) == RootKey(_BYTES, "named file", f"ENCRYPTION_KEY_FILE ({file})")
    one = _settings(tmp_path, encryption_key=SecretStr(other), encryption_key_previous=SecretStr(_FERNET))
    assert find_root_key(one, _SALT, ()).source == "ENCRYPTION_KEY"
    previous = previous_root_key(one, _SALT)
    assert previous is not None
    assert previous.key == _BYTES
    assert not (tmp_path / "config").exists()


class _Keyring(KeyringBackend):
    """The system's keyring, with its lock."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the library's own
        self.entries: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("locked")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def system_keyring() -> Iterator[_Keyring]:
    before = keyring.get_keyring()
    backend = _Keyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def test_the_systems_keyring_keeps_a_key_for_each_vault(tmp_path: Path, system_keyring: _Keyring) -> None:
    settings = _settings(tmp_path, keyring=True)
    first, second = (find_root_key(settings, _SALT, ()) for _ in range(2))
    assert first != second
    assert find_root_key(settings, _SALT, [first.id]) == first
    assert find_root_key(settings, _SALT, [second.id]) == second
    with pytest.raises(Sealed, match="There is no root key"):
        find_root_key(settings, _SALT, ["0" * 16])
    system_keyring.is_locked = True
    with pytest.raises(Sealed, match="Unlock it"):
        find_root_key(settings, _SALT, [first.id])
    assert not (tmp_path / "config").exists()


def test_a_machine_without_a_keyring_is_told_what_to_do(tmp_path: Path, system_keyring: _Keyring) -> None:
    from keyring.backends.fail import Keyring as NoKeyring  # noqa: PLC0415 - as on a server without a desktop

    assert system_keyring
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]  # the library's own
    with pytest.raises(Sealed, match="ENCRYPTION_KEY_FILE"):
        find_root_key(_settings(tmp_path, keyring=True), _SALT, ())


@pytest.mark.skipif(sys.platform != "linux", reason="speaks of /proc")
def test_no_core_is_dumped_and_the_process_can_still_be_watched() -> None:
    program = (
        "import psutil, resource; from ai_lab.vault.core_dumps import no_core_dumps; no_core_dumps();"
        "own = psutil.Process(); assert own.num_fds() > 2; assert own.memory_info().rss; assert own.cpu_times();"
        "import ctypes; print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(0, 0) 0\n"


def test_the_log_names_the_file_that_must_be_backed_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ai_lab.vault"):
        made = make_root_key(_settings(tmp_path))
    (record,) = caplog.records
    assert made.source in record.getMessage()
