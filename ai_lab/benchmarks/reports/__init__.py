"""Owns how a run is shown: JSON with a schema, JSONL, CSV, Markdown, HTML, benchstat text."""
