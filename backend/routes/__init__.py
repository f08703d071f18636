"""One file per capability; this list is what the server offers."""

from backend.routes import (
    agents,
    api_keys,
    benchmarks,
    chat,
    conversations,
    earlier,
    health,
    metrics,
    openai,
    performance,
    root,
    transfer,
)

ROUTERS = (
    root.router,
    health.router,
    metrics.router,
    performance.router,
    chat.router,
    transfer.router,
    conversations.router,
    earlier.router,
    agents.router,
    benchmarks.router,
    api_keys.router,
    openai.router,
)
