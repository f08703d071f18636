"""One file per capability; this list is what the server offers."""

from backend.routes import agents, chat, conversations, health, openai, root

ROUTERS = (root.router, health.router, chat.router, conversations.router, agents.router, openai.router)
