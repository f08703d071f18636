"""A program: the server with one more route, which fails. Arguments: the port, and a secret the route has locally."""

from __future__ import annotations

import asyncio
import sys
import warnings

import uvicorn
from fastapi import Request

from ai_lab.lab import Lab
from ai_lab.logging import set_up_logging
from ai_lab.settings import Settings
from backend.app import create_app


async def _serve(port: int, local_secret: str) -> None:
    async with Lab.open(Settings.load()) as lab:
        app = create_app(lab)

        @app.post("/fails")
        async def fails(request: Request) -> None:
            local = local_secret
            body = await request.body()
            warnings.warn(f"about to fail: token={local}", stacklevel=1)
            raise RuntimeError(f"{request.url} {dict(request.headers)} {request.headers.raw} {body!r} Bearer {local}")

        await uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False)).serve()


if __name__ == "__main__":
    set_up_logging(Settings.load())
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
