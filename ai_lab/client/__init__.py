"""Owns ``LabClient`` and ``AsyncLabClient`` for scripts and notebooks: HTTP to a running server, and no rules."""

from ai_lab.client.async_lab_client import AsyncLabClient
from ai_lab.client.lab_client import LabClient

__all__ = ["AsyncLabClient", "LabClient"]
