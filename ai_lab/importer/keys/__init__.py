"""Owns the import of API keys from earlier tools: each reader gives rows, and ``bring_in`` stores what is readable.

Sources are never changed, and what is in them is data alone: nothing of it is run, followed or fetched.
"""

from ai_lab.importer.keys.bringing import Keeper, Outcome, bring_in
from ai_lab.importer.keys.earlier_lab import earlier_lab_keys
from ai_lab.importer.keys.environment import env_file_keys, environment_keys
from ai_lab.importer.keys.provider_list import token_manager_keys
from ai_lab.importer.keys.rows import Found, Row, Unreadable

__all__ = [
    "Found",
    "Keeper",
    "Outcome",
    "Row",
    "Unreadable",
    "bring_in",
    "earlier_lab_keys",
    "env_file_keys",
    "environment_keys",
    "token_manager_keys",
]
