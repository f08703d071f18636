"""Owns every error that AI Lab raises on purpose, as one tree.

LabError                        500 internal_error
├── InvalidRequest              400 invalid_request
│   ├── UnsupportedFeature      400 unsupported_feature
│   ├── EmptyRange              422 invalid_request
│   ├── ContextOverflow         400 context_length_exceeded
│   ├── LocalOnly               400 local_only
│   └── AddressRefused          400 address_refused
├── NotFound                    404 not_found
│   ├── ConversationNotFound    404 conversation_not_found
│   ├── AgentStateNotFound      404 agent_state_not_found
│   ├── InvalidCursor           404 invalid_cursor
│   ├── MetricNotFound          404 metric_not_found
│   ├── BenchmarkNotFound       404 benchmark_not_found
│   ├── ApiKeyNotFound          404 api_key_not_found
│   ├── ServiceNotFound         404 service_not_found
│   ├── BudgetNotFound          404 budget_not_found
│   ├── CachedAnswerNotFound    404 cached_answer_not_found
│   ├── TraceNotFound           404 trace_not_found
│   ├── RequestCancelled        499 request_cancelled
│   └── ModelNotFound           404 model_not_found
├── Conflict                    409 conflict
│   ├── ConversationExists      409 conversation_exists
│   ├── BenchmarkRunning        409 benchmark_running
│   ├── BenchmarkNotResumable   409 benchmark_not_resumable
│   ├── IdempotencyKeyReused    409 idempotency_key_reused
│   ├── ApiKeyExists            409 api_key_exists
│   ├── ApiKeyAmbiguous         409 api_key_ambiguous
│   ├── ApiKeyUnusable          409 api_key_unusable
│   ├── VaultBusy               409 vault_busy
│   ├── RootKeyElsewhere        409 root_key_elsewhere
│   └── TurnInProgress          409 turn_in_progress
├── ProviderError               502 provider_error
│   ├── ProviderUnavailable     503 provider_unavailable
│   │   └── BreakerOpen         503 breaker_open
│   ├── ProviderTimeout         504 provider_timeout
│   │   └── DeadlineExceeded    504 deadline_exceeded
│   ├── ProviderAuthFailed      502 provider_auth_failed
│   ├── ProviderRateLimited     429 provider_rate_limited
│   │   ├── ProviderQuotaExceeded 402 provider_quota_exceeded
│   │   └── ServiceLimited      429 service_limited
│   ├── ProviderRefused         400 provider_refused
│   │   └── ContentFiltered     400 content_filtered
│   ├── StreamBroken            502 provider_stream_broken
│   └── EngineError             503 engine_unavailable
│       ├── EngineCrashed       502 engine_crashed
│       ├── ModelDamaged        503 model_file_damaged
│       └── OutOfMemory         503 insufficient_memory
├── DatabaseUnavailable         503 database_unavailable
│   ├── DatabaseBusy            503 database_busy
│   └── DatabaseFull            507 database_full
├── BudgetExceeded              402 budget_exceeded
│   └── PriceUnknown            402 price_unknown
├── BenchmarkFailed             502 benchmark_failed
├── BenchmarkQueueFull          429 benchmark_queue_full
├── ApiKeyRefused               422 api_key_refused
├── VaultSealed                 503 vault_sealed
├── Unauthorized                401 unauthorized
├── Forbidden                   403 forbidden
│   ├── ForeignOrigin           403 foreign_origin
│   └── UnknownHost             403 unknown_host
├── RateLimited                 429 rate_limited
├── MetricsUnavailable          503 metrics_unavailable
├── ServerStopping              503 server_stopping
├── ServerUnreachable           503 server_unreachable
│   └── AnswerLost              502 answer_lost
├── SourceDamaged               422 source_damaged
└── StartupError                exit code 2: what is wrong and what to do about it
    ├── InvalidSettings
    ├── DatabaseUnusable
    │   ├── DatabaseDamaged
    │   ├── DatabaseTooNew
    │   └── EarlierDatabase
    ├── DataDirUnusable
    ├── AlreadyRunning
    └── TokenUnusable

``status`` is the HTTP status the web layer answers with and ``code`` a stable name that programs may test for.
The text of an error is for people: it says what happened and the remedy, and never holds a secret.
"""

from __future__ import annotations

from ai_lab.errors.access import (
    AddressRefused,
    Forbidden,
    ForeignOrigin,
    RateLimited,
    Unauthorized,
    UnknownHost,
)
from ai_lab.errors.gateway import (
    BudgetExceeded,
    BudgetNotFound,
    CachedAnswerNotFound,
    LocalOnly,
    PriceUnknown,
    TraceNotFound,
)
from ai_lab.errors.providers import (
    BreakerOpen,
    ContentFiltered,
    DeadlineExceeded,
    EngineCrashed,
    EngineError,
    ModelDamaged,
    OutOfMemory,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    ServiceLimited,
    StreamBroken,
)
from ai_lab.errors.requests import (
    AgentStateNotFound,
    BenchmarkNotFound,
    BenchmarkNotResumable,
    BenchmarkRunning,
    Conflict,
    ContextOverflow,
    ConversationExists,
    ConversationNotFound,
    EmptyRange,
    IdempotencyKeyReused,
    InvalidCursor,
    InvalidRequest,
    LabError,
    MetricNotFound,
    ModelNotFound,
    NotFound,
    RequestCancelled,
    SourceDamaged,
    TurnInProgress,
    UnsupportedFeature,
)
from ai_lab.errors.service import (
    AnswerLost,
    BenchmarkFailed,
    BenchmarkQueueFull,
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnavailable,
    MetricsUnavailable,
    ServerStopping,
    ServerUnreachable,
)
from ai_lab.errors.startup import (
    AlreadyRunning,
    DatabaseDamaged,
    DatabaseTooNew,
    DatabaseUnusable,
    DataDirUnusable,
    EarlierDatabase,
    InvalidSettings,
    StartupError,
    TokenUnusable,
)
from ai_lab.errors.vault import (
    ApiKeyAmbiguous,
    ApiKeyExists,
    ApiKeyNotFound,
    ApiKeyRefused,
    ApiKeyUnusable,
    RootKeyElsewhere,
    ServiceNotFound,
    VaultBusy,
    VaultSealed,
)

__all__ = [
    "AddressRefused",
    "AgentStateNotFound",
    "AlreadyRunning",
    "AnswerLost",
    "ApiKeyAmbiguous",
    "ApiKeyExists",
    "ApiKeyNotFound",
    "ApiKeyRefused",
    "ApiKeyUnusable",
    "BenchmarkFailed",
    "BenchmarkNotFound",
    "BenchmarkNotResumable",
    "BenchmarkQueueFull",
    "BenchmarkRunning",
    "BreakerOpen",
    "BudgetExceeded",
    "BudgetNotFound",
    "CachedAnswerNotFound",
    "Conflict",
    "ContentFiltered",
    "ContextOverflow",
    "ConversationExists",
    "ConversationNotFound",
    "DataDirUnusable",
    "DatabaseBusy",
    "DatabaseDamaged",
    "DatabaseFull",
    "DatabaseTooNew",
    "DatabaseUnavailable",
    "DatabaseUnusable",
    "DeadlineExceeded",
    "EarlierDatabase",
    "EmptyRange",
    "EngineCrashed",
    "EngineError",
    "Forbidden",
    "ForeignOrigin",
    "IdempotencyKeyReused",
    "InvalidCursor",
    "InvalidRequest",
    "InvalidSettings",
    "LabError",
    "LocalOnly",
    "MetricNotFound",
    "MetricsUnavailable",
    "ModelDamaged",
    "ModelNotFound",
    "NotFound",
    "OutOfMemory",
    "PriceUnknown",
    "ProviderAuthFailed",
    "ProviderError",
    "ProviderQuotaExceeded",
    "ProviderRateLimited",
    "ProviderRefused",
    "ProviderTimeout",
    "ProviderUnavailable",
    "RateLimited",
    "RequestCancelled",
    "RootKeyElsewhere",
    "ServerStopping",
    "ServerUnreachable",
    "ServiceLimited",
    "ServiceNotFound",
    "SourceDamaged",
    "StartupError",
    "StreamBroken",
    "TokenUnusable",
    "TraceNotFound",
    "TurnInProgress",
    "Unauthorized",
    "UnknownHost",
    "UnsupportedFeature",
    "VaultBusy",
    "VaultSealed",
]
