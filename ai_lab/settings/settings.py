"""Every setting of AI Lab: one class, read once from the environment and ``.env``.

Names of earlier installations (``DATABASE_URL``, ``OLLAMA_HOST`` …) keep working; new ones start with ``AI_LAB_``.
``config_template.env`` lists all of them, and a test holds it equal to this file.
"""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from ai_lab.errors import InvalidSettings
from ai_lab.settings.entries import (
    AliasEntry,
    OptionalPath,
    OptionalSecret,
    OptionalText,
    PriceEntry,
    ServerEntry,
    ServiceLimits,
    TextList,
    as_alias_entries,
    as_level,
    as_server_entries,
)
from ai_lab.settings.explaining import explain, explain_json

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
_PREFIX = "AI_LAB_"


def default_data_dir() -> Path:
    """Return the folder where this system's programs keep a user's data."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "ai-lab"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "ai-lab"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ai-lab"


def default_config_dir() -> Path:
    """Return the folder where this system's programs keep a user's configuration."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "ai-lab"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Preferences" / "ai-lab"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ai-lab"


def _setting(name: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default=default, validation_alias=name, description=description, **limits)


class Settings(BaseSettings):
    """What an installation can be told. Read once by ``Settings.load()``; everything else gets values passed in."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True)

    api_host: str = _setting("API_HOST", "127.0.0.1", "Address the server listens on.")
    api_port: int = _setting("API_PORT", 8001, "Port the server listens on.", ge=1, le=65535)
    data_dir: OptionalPath = _setting(
        "AI_LAB_DATA_DIR", None, "Where the database and your models live. Default: the user's data folder."
    )
    models_dir: OptionalPath = _setting(
        "AI_LAB_MODELS_DIR", None, "Folder with GGUF model files. Default: models in the data directory."
    )
    database_url: OptionalText = _setting(
        "DATABASE_URL",
        None,
        "sqlite+aiosqlite:///… or postgresql+asyncpg://…; default: ai_lab.sqlite in the data directory.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(as_level)] = _setting(
        "LOG_LEVEL", "INFO", "How much is logged."
    )
    log_format: Literal["console", "json"] = _setting("AI_LAB_LOG_FORMAT", "console", "Lines for people or JSON.")

    log_file: OptionalPath = _setting(
        "AI_LAB_LOG_FILE", None, "Also log to this file, as JSON lines. Relative paths start at the data directory."
    )
    log_file_mb: int = _setting("AI_LAB_LOG_FILE_MB", 10, "A log file of this size (MiB) is put aside.", ge=1)
    log_files_kept: int = _setting("AI_LAB_LOG_FILES_KEPT", 5, "Log files that are kept besides the newest.", ge=1)
    slow_operation_ms: float = _setting(
        "AI_LAB_SLOW_OPERATION_MS", 1000, "Operations that take longer are logged as slow; 0 logs none.", ge=0
    )
    sentry_dsn: OptionalSecret = _setting(
        "SENTRY_DSN", None, "Address of a Sentry server for error reports; needs the extra ai-lab[sentry]."
    )

    enable_metrics: bool = _setting(
        "ENABLE_METRICS", True, "Sample the machine in the background and keep the history of it."
    )
    metrics_interval_seconds: float = _setting(
        "AI_LAB_METRICS_INTERVAL_SECONDS", 5, "Time between two samples of the machine.", ge=1, le=60
    )
    metrics_host: bool = _setting(
        "AI_LAB_METRICS_HOST", True, "Show the machine to Prometheus too; turn off where node_exporter does that."
    )
    history_raw_hours: float = _setting("AI_LAB_HISTORY_RAW_HOURS", 24, "Every sample is kept this long.", ge=1, le=720)
    history_minute_days: float = _setting(
        "AI_LAB_HISTORY_MINUTE_DAYS", 14, "Figures per minute are kept this long, as far as they fit.", ge=1, le=3650
    )
    history_hour_days: float = _setting(
        "AI_LAB_HISTORY_HOUR_DAYS", 730, "Figures per hour are kept this long.", ge=1, le=36500
    )
    history_max_mb: int = _setting(
        "AI_LAB_HISTORY_MAX_MB",
        50,
        "Room for a month of history (MB); minutes go earlier where it would be more.",
        ge=10,
    )

    default_model: OptionalText = _setting(
        "AI_LAB_DEFAULT_MODEL",
        None,
        "provider/model used when a request names none. Default: OLLAMA_MODEL if set, else the embedded model.",
    )
    ollama_host: str = _setting("OLLAMA_HOST", "http://127.0.0.1:11434", "Address of an Ollama server.")
    ollama_model: OptionalText = _setting("OLLAMA_MODEL", None, "Ollama model to use by default.")
    servers: Annotated[dict[str, ServerEntry], BeforeValidator(as_server_entries)] = _setting(
        "AI_LAB_SERVERS",
        {},
        'OpenAI-compatible servers as JSON: {"name": "http://host/v1"} or {"name": {"base_url": …, "api_key": …}}.',
        examples=['{"work": {"base_url": "http://127.0.0.1:8000/v1", "context_tokens": 8192}}'],
    )
    context_tokens: int = _setting(
        "AI_LAB_CONTEXT_TOKENS", 4096, "Context per conversation for the embedded engine and Ollama.", ge=256
    )
    engine_slots: int = _setting(
        "AI_LAB_ENGINE_SLOTS", 2, "Answers the embedded engine writes at once; further ones wait.", ge=1, le=64
    )
    engine_threads: int | None = _setting("AI_LAB_ENGINE_THREADS", None, "Threads of the engine. Default: cores.", ge=1)
    engine_idle_seconds: float = _setting(
        "AI_LAB_ENGINE_IDLE_SECONDS", 600, "The engine leaves memory after this long without work.", ge=1
    )
    engine_gpu_layers: int = _setting(
        "AI_LAB_ENGINE_GPU_LAYERS", -1, "Layers the engine puts on a GPU: -1 as many as fit, 0 none.", ge=-1
    )
    cuda_visible_devices: OptionalText = _setting("CUDA_VISIBLE_DEVICES", None, "GPUs that the engine may use.")
    request_timeout_seconds: float = _setting(
        "AI_LAB_REQUEST_TIMEOUT_SECONDS", 300, "Longest silence of a model before a request fails.", gt=0
    )

    aliases: Annotated[dict[str, AliasEntry], BeforeValidator(as_alias_entries)] = _setting(
        "AI_LAB_ALIASES",
        {},
        'Names for lists of models, tried until one answers, as JSON: {"fast": ["provider/model", …]} or '
        '{"fast": {"models": […], "strategy": "order|weighted|cheapest|fastest", "weights": […]}}.',
        examples=['{"fast": ["openai/gpt-5-mini", "echo/echo"]}'],
    )
    service_limits: dict[str, ServiceLimits] = _setting(
        "AI_LAB_SERVICE_LIMITS",
        {},
        'What is asked of a service at most, as JSON: {"openai": {"concurrency": 8, "requests": "500/minute", '
        '"tokens": "200000/minute"}}.',
        examples=['{"openai": {"concurrency": 8, "requests": "500/minute", "tokens": "200000/minute"}}'],
    )
    retry_attempts: int = _setting(
        "AI_LAB_RETRY_ATTEMPTS", 3, "Times a service is asked before it has begun to answer.", ge=1, le=10
    )
    retry_wait_seconds: float = _setting(
        "AI_LAB_RETRY_WAIT_SECONDS", 1, "Wait before the second time; it doubles, with jitter.", gt=0, le=60
    )
    deadline_seconds: float = _setting(
        "AI_LAB_DEADLINE_SECONDS", 600, "Longest time for a whole answer, retries and other models included.", gt=0
    )
    breaker_failures: int = _setting(
        "AI_LAB_BREAKER_FAILURES", 5, "Failures in a row after which a model of a service is left alone.", ge=1
    )
    breaker_seconds: float = _setting(
        "AI_LAB_BREAKER_SECONDS", 30, "How long it is left alone before one request tries it again.", gt=0, le=86_400
    )

    cache: bool = _setting("AI_LAB_CACHE", True, "Give the stored answer to a request that was answered before.")
    cache_seconds: float = _setting(
        "AI_LAB_CACHE_SECONDS", 3600, "How long an answer is given again.", gt=0, le=315_360_000
    )
    cache_mb: int = _setting("AI_LAB_CACHE_MB", 100, "Room for stored answers (MB); the oldest go first.", ge=1)
    cache_temperature: float = _setting(
        "AI_LAB_CACHE_TEMPERATURE",
        0.3,
        "Requests of a higher temperature are always answered anew; one that names none counts as 0.",
        ge=0,
        le=2,
    )
    semantic_cache: Literal["off", "shadow", "on"] = _setting(
        "AI_LAB_SEMANTIC_CACHE", "off", "Give it to a question that only says the same, too; shadow: only count those."
    )
    semantic_cache_similarity: float = _setting(
        "AI_LAB_SEMANTIC_CACHE_SIMILARITY", 0.98, "How alike two questions must be (cosine).", ge=0.9, le=1
    )

    prices: dict[str, PriceEntry] = _setting(
        "AI_LAB_PRICES",
        {},
        'Prices in US dollars per million tokens, as JSON: {"provider/model": {"input": 0.5, "output": 1.5}}; '
        '"provider/*" is for all models of a service.',
        examples=['{"work/*": {"input": 0.5, "output": 1.5}}'],
    )
    electricity_price: float | None = _setting(
        "AI_LAB_ELECTRICITY_PRICE", None, "US dollars per kWh, for what local models cost.", ge=0
    )
    local_watts: float | None = _setting(
        "AI_LAB_LOCAL_WATTS",
        None,
        "What this machine draws while a local model answers. Default: as the GPUs measure it.",
        gt=0,
    )

    trace_days: float = _setting(
        "AI_LAB_TRACE_DAYS", 30, "Traces of answers are kept this long; 0 keeps none.", ge=0, le=36500
    )
    trace_prompts: bool = _setting("AI_LAB_TRACE_PROMPTS", False, "Keep what was asked and answered in traces, too.")
    otlp_endpoint: OptionalText = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT", None, "Send traces to this OpenTelemetry collector too; needs ai-lab[otel]."
    )

    config_dir: OptionalPath = _setting(
        "AI_LAB_CONFIG_DIR", None, "Where the vault's key and the tokens lie. Default: the user's configuration folder."
    )
    encryption_key_file: OptionalPath = _setting(
        "ENCRYPTION_KEY_FILE", None, "File with the vault's root key; it wins over ENCRYPTION_KEY."
    )
    encryption_key: OptionalSecret = _setting(
        "ENCRYPTION_KEY",
        None,
        "Root key of the vault: a Fernet key, 64 hex digits, or passphrase:…; default: a file in the folder above.",
    )
    encryption_key_previous: OptionalSecret = _setting(
        "ENCRYPTION_KEY_PREVIOUS", None, "The root key before this one, while the vault moves from it to the new one."
    )
    keyring: bool = _setting(
        "AI_LAB_KEYRING", False, "Keep the root key in the system's keyring; needs the extra ai-lab[keyring]."
    )
    allowed_addresses: TextList = _setting(
        "AI_LAB_ALLOWED_ADDRESSES",
        (),
        "Hosts and networks of your own (10.0.0.5, 192.168.0.0/16, gpu.lan) that stored keys may be used with.",
    )

    require_token: bool = _setting(
        "AI_LAB_REQUIRE_TOKEN",
        False,
        "Want a token on 127.0.0.1 too; any other address, and a lab behind a proxy, always want one.",
    )
    token: OptionalSecret = _setting(
        "AI_LAB_TOKEN", None, "The token of clients and server. Default: a file in AI_LAB_CONFIG_DIR, made when needed."
    )
    token_file: OptionalPath = _setting("AI_LAB_TOKEN_FILE", None, "File with that token.")
    metrics_token_file: OptionalPath = _setting(
        "AI_LAB_METRICS_TOKEN_FILE", None, "File with a token that may only read metrics, for Prometheus."
    )
    allowed_hosts: TextList = _setting(
        "AI_LAB_ALLOWED_HOSTS", (), "Further names that this server goes by (lab.example.org), separated by commas."
    )
    cors_origins: TextList = _setting(
        "AI_LAB_CORS_ORIGINS", (), "Web pages of other addresses that may use the API (https://lab.example.org)."
    )
    trusted_proxies: TextList = _setting(
        "AI_LAB_TRUSTED_PROXIES", (), "Addresses of reverse proxies whose X-Forwarded-For and -Proto are believed."
    )
    rate_limits: bool = _setting(
        "AI_LAB_RATE_LIMITS", True, "Limit requests per client; turn off behind an API gateway that does it."
    )
    rate_limit_requests: str = _setting(
        "AI_LAB_RATE_LIMIT_REQUESTS", "6000/minute", "Requests per client and endpoint."
    )
    rate_limit_model_calls: str = _setting(
        "AI_LAB_RATE_LIMIT_MODEL_CALLS", "600/minute", "Requests per client that a model answers."
    )
    rate_limit_keys: str = _setting("AI_LAB_RATE_LIMIT_KEYS", "120/minute", "Changes and tests of API keys per client.")
    rate_limit_failures: str = _setting("AI_LAB_RATE_LIMIT_FAILURES", "30/minute", "Wrong tokens per address.")
    redis_url: OptionalSecret = _setting(
        "REDIS_URL",
        None,
        "Rate limits and stored answers of several servers; needs ai-lab[redis]. Default: the database.",
    )

    _env_folder: Path = Path()
    _env_values: dict[str, str | None] = {}

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read the environment and ``.env`` (of the current folder, else of the project folder).

        Args:
            overrides: values by field name that win over both, as given on a command line.

        Raises:
            InvalidSettings: a value cannot be used or an ``AI_LAB_`` name is unknown; the text names the setting.
        """
        folder = Path.cwd() if (Path.cwd() / ".env").is_file() else PROJECT_ROOT
        env_file = folder / ".env"
        try:
            _refuse_unknown_names(env_file)
            settings = cls(_env_file=env_file, **{k: v for k, v in overrides.items() if v is not None})
        except ValidationError as error:
            raise InvalidSettings(explain(error, _fields())) from None
        except (UnicodeDecodeError, OSError) as error:
            raise InvalidSettings(f"{env_file} cannot be read ({error}). Save it as UTF-8 text.") from None
        except ValueError as error:  # pydantic-settings: a value that should be JSON is not
            raise InvalidSettings(explain_json(error, _fields(), setting_names())) from None
        settings._env_folder = folder if env_file.is_file() else Path.cwd()
        if env_file.is_file():
            source = DotEnvSettingsSource(Settings, env_file=env_file, case_sensitive=True)
            settings._env_values = dict(source.env_vars)
        return settings

    def data_path(self) -> Path:
        """Return the absolute data directory (it may not exist yet)."""
        return self.absolute(self.data_dir) if self.data_dir else default_data_dir()

    def config_path(self) -> Path:
        """Return the absolute folder of keys and tokens (it may not exist yet); no backup of the data holds it."""
        return self.absolute(self.config_dir) if self.config_dir else default_config_dir()

    def named(self, name: str) -> str | None:
        """Return what the environment or ``.env`` says under the name of another program, such as OPENAI_API_KEY."""
        value = os.environ.get(name) or self._env_values.get(name) or ""
        return value.strip() or None

    def models_path(self) -> Path:
        """Return the absolute folder of GGUF files (it may not exist yet)."""
        return self.absolute(self.models_dir) if self.models_dir else self.data_path() / "models"

    def default_model_name(self) -> str | None:
        """Return the configured ``provider/model``, or None for the embedded default."""
        if self.default_model:
            return self.default_model
        return f"ollama/{self.ollama_model}" if self.ollama_model else None

    def absolute(self, path: Path) -> Path:
        """Return ``path`` made absolute; a relative one starts at the folder of ``.env``."""
        path = path.expanduser()
        return path if path.is_absolute() else (self._env_folder / path).resolve()


def setting_names() -> dict[str, str]:
    """Return the environment name of every setting, by field name."""
    return {field: str(info.validation_alias) for field, info in Settings.model_fields.items()}


def _fields() -> dict[str, FieldInfo]:
    return {str(info.validation_alias): info for info in Settings.model_fields.values()}


def _refuse_unknown_names(env_file: Path) -> None:
    known = set(setting_names().values())
    given = set(os.environ)
    if env_file.is_file():
        given |= {name.upper() for name in DotEnvSettingsSource(Settings, env_file=env_file).env_vars}
    for name in sorted(given - known):
        if name.startswith(_PREFIX):
            tails = {one.removeprefix(_PREFIX): one for one in known}  # the prefix alone makes all of them alike
            near = difflib.get_close_matches(name.removeprefix(_PREFIX), tails, n=1)
            hint = f" Did you mean {tails[near[0]]}?" if near else " See config_template.env for all names."
            raise InvalidSettings(f"Unknown setting {name}.{hint}")
