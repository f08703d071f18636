import re
from pathlib import Path

import pytest

from ai_lab.database import database_address
from ai_lab.errors import InvalidSettings
from ai_lab.settings import PROJECT_ROOT, Settings, setting_names

TEMPLATE = (PROJECT_ROOT / "config_template.env").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").touch()
    for name in setting_names().values():
        monkeypatch.delenv(name, raising=False)


def test_the_template_names_every_setting_with_its_default() -> None:
    documented = dict(re.findall(r"^#([A-Z_]+)=(.*)$", TEMPLATE, re.MULTILINE))
    assert set(documented) == set(setting_names().values())
    for field, name in setting_names().items():
        default = Settings.model_fields[field].default
        shown = documented[name]
        assert shown == (
            "" if default in (None, ()) else str(default).lower() if isinstance(default, bool) else str(default)
        )


def test_the_template_itself_loads(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(re.sub(r"^#([A-Z_]+=)", r"\1", TEMPLATE, flags=re.MULTILINE), encoding="utf-8")
    assert Settings.load().model_dump() == Settings.model_construct().model_dump()


def test_names_of_earlier_installations_work(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "DATABASE_URL=sqlite+aiosqlite:///./lab.db\nAPI_HOST=::1\nAPI_PORT=9000\nOLLAMA_HOST=http://gpu:11434\n"
        "OLLAMA_MODEL=llama3\nENABLE_METRICS=false\nENCRYPTION_KEY=abc\nLOG_LEVEL=debug\nCUDA_VISIBLE_DEVICES=0,1\n"
    )
    settings = Settings.load()
    assert (settings.api_host, settings.api_port, settings.log_level) == ("::1", 9000, "DEBUG")
    assert settings.default_model_name() == "ollama/llama3"
    assert settings.cuda_visible_devices == "0,1"
    assert database_address(settings).database == str(tmp_path / "lab.db")


def test_a_relative_database_belongs_to_the_folder_of_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=sqlite:///lab.db\n")
    settings = Settings.load()
    monkeypatch.chdir("/")
    assert database_address(settings).render_as_string() == f"sqlite+aiosqlite:///{tmp_path}/lab.db"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("API_PORT=9000\n")
    monkeypatch.setenv("API_PORT", "9001")
    assert Settings.load().api_port == 9001
    assert Settings.load(api_port=9002).api_port == 9002


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("AI_LAB_DATADIR=x", "AI_LAB_DATA_DIR"),
        ("ai_lab_modelsdir=x", "AI_LAB_MODELS_DIR"),
        ("AI_LAB_XYLOPHONES=1", "config_template.env"),
        ("API_PORT=70000", "API_PORT"),
        ("LOG_LEVEL=loud", "LOG_LEVEL"),
        ("AI_LAB_SERVERS={", "AI_LAB_SERVERS"),
        ('AI_LAB_SERVERS={"x": {}}', "AI_LAB_SERVERS"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_wrong(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / ".env").write_text(line + "\n")
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    assert expected in caught.value.detail


def test_no_error_shows_a_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('AI_LAB_SERVERS={"x": {"base_url": 5, "api_key": "CANARY"}}\n')
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    assert "CANARY" not in caught.value.detail
    (tmp_path / ".env").write_text('AI_LAB_SERVERS={"x": {"base_url": "http://h/v1", "api_key": "CANARY"}}\n')
    assert "CANARY" not in repr(Settings.load())


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+aiosqlite:///:memory:", "sqlite://"])
def test_an_address_that_cannot_work_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\n")
    with pytest.raises(InvalidSettings):
        database_address(Settings.load())
