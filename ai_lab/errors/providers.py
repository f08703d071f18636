"""What goes wrong at a model service or in the embedded engine."""

from __future__ import annotations

from ai_lab.errors.requests import LabError


class ProviderError(LabError):
    """A model service answered with an error of its own."""

    status, code, title = 502, "provider_error", "The model service failed"


class ProviderUnavailable(ProviderError):
    """The service cannot be reached or says that it cannot serve now."""

    status, code, title = 503, "provider_unavailable", "The model service is not reachable"


class ProviderTimeout(ProviderError):
    """The service did not answer in time."""

    status, code, title = 504, "provider_timeout", "The model service did not answer in time"


class ProviderAuthFailed(ProviderError):
    """The service refused our key."""

    code, title = "provider_auth_failed", "The model service refused the API key"


class ProviderRateLimited(ProviderError):
    """The service asks us to slow down or is out of quota."""

    status, code, title = 429, "provider_rate_limited", "The model service limits the rate of requests"


class ProviderRefused(ProviderError):
    """The service says that the request itself is wrong."""

    status, code, title = 400, "provider_refused", "The model service refused the request"


class ProviderQuotaExceeded(ProviderRateLimited):
    """The account at the service is out of money or quota: waiting a moment does not help."""

    # Not 429, which clients take for a reason to ask again.
    status, code, title = 402, "provider_quota_exceeded", "The account at the model service is out of quota"


class ContentFiltered(ProviderRefused):
    """The service's content filter refused the request."""

    code, title = "content_filtered", "The model service's content filter refused the request"


class BreakerOpen(ProviderUnavailable):
    """The service failed again and again and is left alone for a while; it was not asked."""

    code, title = "breaker_open", "The model service is left alone after failures"


class ServiceLimited(ProviderRateLimited):
    """As much is asked of the service as the lab's own limits allow; it was not asked."""

    code, title = "service_limited", "The lab's limit for this model service is reached"


class DeadlineExceeded(ProviderTimeout):
    """The time for the whole answer is over, retries and other models included."""

    code, title = "deadline_exceeded", "The answer was not complete in time"


class StreamBroken(ProviderError):
    """The answer stopped in the middle without its end marker."""

    code, title = "provider_stream_broken", "The answer broke off"


class EngineError(ProviderError):
    """The embedded engine cannot serve."""

    status, code, title = 503, "engine_unavailable", "The embedded engine is not available"


class EngineCrashed(EngineError):
    """The engine process died while it was answering."""

    status, code, title = 502, "engine_crashed", "The embedded engine crashed"


class ModelDamaged(EngineError):
    """The model file cannot be loaded."""

    code, title = "model_file_damaged", "The model file is damaged"


class OutOfMemory(EngineError):
    """The machine has not enough free memory for the model."""

    code, title = "insufficient_memory", "Not enough memory for this model"
