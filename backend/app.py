"""The web application around an open lab."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from ai_lab import __version__
from ai_lab.lab import Lab
from backend import errors
from backend.errors import PROBLEM_TYPE, Problem
from backend.measured import MeasuredRequests
from backend.middleware import RequestContext
from backend.routes import ROUTERS

_DESCRIPTION = (
    "Chat with local models; everything said is kept. `/v1` speaks OpenAI's API. Errors are problem details "
    "(RFC 9457), under `/v1` OpenAI's. Every answer carries `x-request-id`; mutations take an `Idempotency-Key`."
)


def create_app(lab: Lab) -> FastAPI:
    """Return the application; it lives as long as the lab that it is given."""
    app = FastAPI(title="AI Lab", version=__version__, docs_url=None, redoc_url=None)
    app.state.lab = lab
    app.state.routers = ROUTERS
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.add_middleware(MeasuredRequests, instruments=lab.telemetry.instruments)
    app.add_middleware(RequestContext, slow=lab.slow)  # the outermost, so that all others have its ids
    _add_docs(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _add_docs(app: FastAPI) -> None:
    """Serve Swagger UI from a package's files, so that it works without a network."""
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:  # pages without style would say less than /openapi.json
        return
    assets = Path(spec.origin).parent / "static"
    app.mount("/docs/assets", StaticFiles(directory=assets), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="AI Lab",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )


def _openapi(app: FastAPI) -> dict[str, Any]:
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
    for path, operations in schema["paths"].items():
        content = (
            {"application/json": {"schema": openai}} if path.startswith("/v1/") else {PROBLEM_TYPE: {"schema": problem}}
        )
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status in ("4XX", "5XX"):
                operation["responses"].setdefault(status, {"description": "What went wrong.", "content": content})
    app.openapi_schema = schema
    return schema
