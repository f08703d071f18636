"""Owns rate limits: windows of requests per client, in memory, in the database or on Redis. Knows no endpoint."""
