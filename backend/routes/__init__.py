"""One file per capability; this list is what the server offers."""

from backend.routes import (
    agents,
    api_keys,
    benchmarks,
    budgets,
    cache,
    chat,
    conversations,
    costs,
    earlier,
    gateway,
    health,
    metrics,
    openai,
    performance,
    root,
    traces,
    transfer,
)

#: What is asked for most often stands first: routes are tried one after the other.
ROUTERS = (
    openai.router,
    chat.router,
    root.router,
    health.router,
    metrics.router,
    performance.router,
    transfer.router,
    conversations.router,
    earlier.router,
    agents.router,
    benchmarks.router,
    cache.router,
    gateway.router,
    costs.router,
    budgets.router,
    api_keys.router,
    traces.router,
)
