"""Owns API keys: encrypted, bound to their service and address, tested, rotated, audited. Talks to no model."""
