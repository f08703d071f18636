"""Owns the record of how each answer came about, and its export. Does not make answers."""
