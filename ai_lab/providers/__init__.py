"""Owns talking to models: one protocol, one catalog, one file per wire format. Does not store or retry anything."""

from ai_lab.providers.registry import ListedModel, Providers, ResolvedModel
from ai_lab.providers.types import ChatRequest, Chunk, Embeddings, Message, ModelInfo, Provider, Usage

__all__ = [
    "ChatRequest",
    "Chunk",
    "Embeddings",
    "ListedModel",
    "Message",
    "ModelInfo",
    "Provider",
    "Providers",
    "ResolvedModel",
    "Usage",
]
