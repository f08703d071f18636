"""The page on which a browser hands in the token and gets a cookie for it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, SecretStr

from ai_lab.access import Tokens, cookie_for
from ai_lab.errors import Forbidden
from backend.access import OnFailure, address_of, refused_token
from backend.security_headers import LOGIN

_FILES = Path(__file__).with_name("ui")
_LONGEST_TOKEN = 4096


class Login(BaseModel):
    """The token, as it was handed in."""

    token: SecretStr = Field(max_length=_LONGEST_TOKEN)


def add_login(app: FastAPI, tokens: Tokens, cookie_name: str, on_failure: OnFailure) -> None:
    """Serve ``/login`` and ``/logout``; only for servers that want a token.

    The cookie is sent to this server alone, never along with what another site starts, and no script sees it.
    """

    @app.get("/login", include_in_schema=False)
    async def page() -> Response:
        return _file("login.html", "text/html; charset=utf-8")

    @app.get("/login/login.js", include_in_schema=False)
    async def script() -> Response:
        return _file("login.js", "text/javascript; charset=utf-8")

    @app.get("/login/login.css", include_in_schema=False)
    async def style() -> Response:
        return _file("login.css", "text/css; charset=utf-8")

    @app.post("/login", include_in_schema=False, status_code=204)
    async def log_in(request: Request, login: Login) -> Response:
        token = login.token.get_secret_value().strip()
        scope = tokens.scope_of(token)
        if scope is None:
            raise await refused_token(on_failure, address_of(request.scope))
        if scope != "admin":
            raise Forbidden("This token only reads metrics. To log in, take the admin's token.")
        response = Response(status_code=204)
        response.set_cookie(
            cookie_name,
            cookie_for(token),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    @app.post("/logout", include_in_schema=False, status_code=204)
    async def log_out() -> Response:
        response = Response(status_code=204)
        response.delete_cookie(cookie_name, path="/", httponly=True, samesite="strict")
        return response


def _file(name: str, media_type: str) -> Response:
    content = (_FILES / name).read_bytes()
    return Response(content, media_type=media_type, headers={"content-security-policy": LOGIN})
