"""Owns the way to a model: retries, breakers, limits, fallbacks, cache, budgets, traces; a file for each policy."""
