"""The published JSON Schema of a report, made of the shapes themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

from ai_lab.benchmarks.schemas import SCHEMA_VERSION, Run

SCHEMA_ID = f"urn:ai-lab:benchmark-run:{SCHEMA_VERSION}"


@cache
def _schema() -> dict[str, Any]:
    return Run.model_json_schema(mode="serialization")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that every JSON report of this version fits."""
    shape = _schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **shape,
        "title": "AI Lab benchmark run",
        "properties": {
            "$schema": {"const": SCHEMA_ID, "description": "The version of this schema that the report fits."},
            **shape["properties"],
        },
    }
