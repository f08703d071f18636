"""Owns benchmarks of models: load, records, statistics, comparison, reports. Does not go through the gateway."""
