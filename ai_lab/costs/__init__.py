"""Owns what attempts at models cost, in money and electricity, and budgets. Does not ask models."""
