"""Owns bringing in data of earlier systems. Never changes a source."""
