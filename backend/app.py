"""The web application around an open lab."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from ai_lab import __version__
from ai_lab.access import tokens_of
from ai_lab.lab import Lab
from ai_lab.rate_limits import RateLimits
from backend import errors
from backend.access import OPEN_PATHS, AccessRules, Doors
from backend.errors import PROBLEM_TYPE, Problem
from backend.failed_tokens import FailedTokens, Note
from backend.login import add_login
from backend.measured import MeasuredRequests
from backend.middleware import RequestContext
from backend.rate_limits import LimitedRequests, failed_token_limit
from backend.routes import ROUTERS
from backend.security_headers import SecurityHeaders, docs_policy

_DESCRIPTION = (
    "Chat with local models; everything said is kept. `/v1` speaks OpenAI's API. Errors are problem details "
    "(RFC 9457), under `/v1` OpenAI's. Every answer carries `x-request-id`; mutations take an `Idempotency-Key`."
)

#: What web pages of named origins may read besides the body.
_SHOWN_HEADERS = [
    "x-request-id",
    "Retry-After",
    *(f"RateLimit-{name}" for name in ("Limit", "Remaining", "Reset")),
    *(f"x-ai-lab-{name}" for name in ("provider", "model", "cache", "cost", "attempts", "trace-id")),
]


def create_app(lab: Lab, doors: Doors | None = None) -> FastAPI:
    """Return the application; it lives as long as the lab that it is given.

    Args:
        lab: open.
        doors: who may come in. Default: as the lab's settings say.

    Raises:
        StartupError: the settings of the doors cannot be used.
    """
    doors = doors or Doors.of(lab.settings, tokens_of(lab.settings))
    limits = RateLimits.open(lab.settings, lab.database)
    failures = FailedTokens(failed_token_limit(limits), _noting(lab))

    @contextlib.asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        await failures.close()
        await limits.close()

    app = FastAPI(title="AI Lab", version=__version__, docs_url=None, redoc_url=None, lifespan=living)
    app.state.lab = lab
    app.state.routers = ROUTERS
    for router in ROUTERS:
        app.include_router(router)
    if doors.tokens:
        add_login(app, doors.tokens, doors.cookie_name, failures.count)
    errors.install(app)
    # From the inside to the outside; what is refused is measured and logged like everything else.
    paths = [route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    app.add_middleware(LimitedRequests, limits=limits, paths=paths)
    app.add_middleware(AccessRules, doors=doors, on_failure=failures.count)
    if doors.names.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=doors.names.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,  # a page that is named is meant to reach this network
            expose_headers=_SHOWN_HEADERS,
        )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(MeasuredRequests, instruments=lab.telemetry.instruments)
    app.add_middleware(RequestContext, slow=lab.slow)  # the outermost, so that all others have its ids
    _add_docs(app)
    app.openapi = lambda: _openapi(app, wants_token=doors.tokens is not None)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _noting(lab: Lab) -> Note:
    """Return what puts wrong tokens into the audit."""

    async def note(address: str, attempts: int) -> None:
        await lab.vault.note("auth_failed", "refused", actor=f"anonymous {address}", details={"attempts": attempts})

    return note


def _add_docs(app: FastAPI) -> None:
    """Serve Swagger UI from a package's files, so that it works without a network."""
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:  # pages without style would say less than /openapi.json
        return
    assets = Path(spec.origin).parent / "static"
    app.mount("/docs/assets", StaticFiles(directory=assets), name="docs-assets")

    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="AI Lab",
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.png",
    )
    page.headers["content-security-policy"] = docs_policy(bytes(page.body).decode())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page


def _openapi(app: FastAPI, *, wants_token: bool) -> dict[str, Any]:
    """Return the description with what every operation may answer: our problems instead of FastAPI's."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
    components = schema["components"]["schemas"]
    components["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    problem = {"$ref": "#/components/schemas/Problem"}
    openai = {"type": "object", "properties": {"error": {"type": "object"}}, "required": ["error"]}
    if wants_token:
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
    for path, operations in schema["paths"].items():
        content = (
            {"application/json": {"schema": openai}} if path.startswith("/v1/") else {PROBLEM_TYPE: {"schema": problem}}
        )
        for operation in operations.values():
            if wants_token and path in OPEN_PATHS:
                operation["security"] = []
            operation["responses"].pop("422", None)
            for status in ("4XX", "5XX"):
                operation["responses"].setdefault(status, {"description": "What went wrong.", "content": content})
    app.openapi_schema = schema
    return schema
