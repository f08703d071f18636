import json
import re
from pathlib import Path

import pytest

from ai_lab.database import database_address
from ai_lab.errors import InvalidSettings
from ai_lab.settings import PROJECT_ROOT, Settings, setting_names
from tests.security.canary import holds_secret, new_secret

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
        ("AI_LAB_SERVERS={", "AI_LAB_SERVERS must be JSON: at character 2 a name in double quotes is missing"),
        ("AI_LAB_PRICES={'a/b': {}}", "In a shell, put all of it into single quotes. For example: AI_LAB_PRICES={"),
        ('AI_LAB_PRICES={"a/b": {}} x', "at character 13 there is more behind the end"),
        ('AI_LAB_SERVERS={"x": {}}', "AI_LAB_SERVERS: x.base_url is missing. For example: AI_LAB_SERVERS={"),
        ('AI_LAB_SERVERS={"x": "h"}', "x.base_url is wrong: it is not an http or https address"),
        ('AI_LAB_SERVERS={"x": {"base_url": "http://h", "api_kye": ""}}', "x.api_kye is no known name, but api_key is"),
        ('AI_LAB_ALIASES={"fast": [1]}', "AI_LAB_ALIASES: fast.models[0] must be a text in double quotes. For"),
        ('AI_LAB_ALIASES={"fast": {"models": ["a"], "strategy": "x"}}', "fast.strategy must be 'order', 'weighted', "),
        ('AI_LAB_ALIASES={"fast": {"models": ["a"], "weights": [1]}}', "fast is wrong: weights belong to the strategy"),
        ("AI_LAB_ALIASES=[]", "AI_LAB_ALIASES must be an object in braces"),
        ('AI_LAB_PRICES={"a/b": {"input": -1}}', 'AI_LAB_PRICES: "a/b".input must be at least 0. For example: '),
        ("AI_LAB_CACHE_SECONDS=inf", "AI_LAB_CACHE_SECONDS must be at most 315360000"),
        ("AI_LAB_TRACE_DAYS=1e6", "AI_LAB_TRACE_DAYS must be at most 36500"),
        ("AI_LAB_BREAKER_SECONDS=inf", "AI_LAB_BREAKER_SECONDS must be at most 86400"),
        ('AI_LAB_SERVICE_LIMITS={"o": {"concurrency": 0}}', "AI_LAB_SERVICE_LIMITS: o.concurrency must be at least 1"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_wrong(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / ".env").write_text(line + "\n")
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    assert expected in caught.value.detail


def test_the_examples_that_are_shown_are_right(tmp_path: Path) -> None:
    examples = {field: info.examples for field, info in Settings.model_fields.items() if info.examples}
    names = setting_names()
    (tmp_path / ".env").write_text("".join(f"{names[field]}={shown[0]}\n" for field, shown in examples.items()))
    settings = Settings.load()
    assert set(examples) == {"servers", "aliases", "service_limits", "prices"}
    assert all(getattr(settings, field) for field in examples)


@pytest.mark.parametrize(
    "line",
    [
        'AI_LAB_SERVERS={"x": {"base_url": 5, "api_key": "%s"}}',
        'AI_LAB_SERVERS={"x": "%s"}',
        'AI_LAB_SERVERS={"x": {"base_url": "http://h", "%s": 1}}',
        'AI_LAB_SERVERS={"%s": 1}',
        'AI_LAB_SERVERS={"x": "%s',
        'AI_LAB_ALIASES={"x": {"models": ["a"], "strategy": "%s"}}',
        "API_PORT=%s",
    ],
)
def test_no_error_shows_a_value(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    name, _, value = line.partition("=")
    monkeypatch.setenv(name, value.replace("%s", new_secret()))
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    assert not holds_secret(caught.value.detail.encode())


def test_a_key_in_the_settings_is_not_shown_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"base_url": "http://h/v1", "api_key": new_secret()}
    monkeypatch.setenv("AI_LAB_SERVERS", json.dumps({"x": entry}))
    assert not holds_secret(repr(Settings.load()).encode())


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+aiosqlite:///:memory:", "sqlite://"])
def test_an_address_that_cannot_work_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\n")
    with pytest.raises(InvalidSettings):
        database_address(Settings.load())
