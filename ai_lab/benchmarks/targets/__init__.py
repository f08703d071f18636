"""Owns talking to a server under test: one file per wire format, stamps at the socket read."""
