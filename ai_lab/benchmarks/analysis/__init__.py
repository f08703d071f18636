"""Owns what records mean: metrics, intervals, comparisons and the grade. Pure functions; loads numpy."""
