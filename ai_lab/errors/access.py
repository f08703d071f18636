"""Who may not come in, and where the server does not go."""

from __future__ import annotations

from ai_lab.errors.requests import InvalidRequest, LabError


class Unauthorized(LabError):
    """The server wants a token, and this one is missing or wrong."""

    status, code, title = 401, "unauthorized", "A token is required"


class Forbidden(LabError):
    """The token is good, but not for this; or nobody may do it."""

    status, code, title = 403, "forbidden", "Not allowed"


class ForeignOrigin(Forbidden):
    """A page of another site tries to change something here."""

    code, title = "foreign_origin", "Requests from other sites are refused"


class UnknownHost(Forbidden):
    """The request names a host that this server does not go by, as after DNS rebinding."""

    code, title = "unknown_host", "This server has another name"


class RateLimited(LabError):
    """This client sends more requests than it may; ``retry_after_seconds`` says when to go on."""

    status, code, title = 429, "rate_limited", "Too many requests"


class AddressRefused(InvalidRequest):
    """The server does not connect there, so that nobody reaches through it what is out of their own reach."""

    code, title = "address_refused", "This address is not allowed"
