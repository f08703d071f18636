"""Owns the HTTP layer: requests become calls of ``ai_lab``, results become answers. Knows no SQL and no rules."""
