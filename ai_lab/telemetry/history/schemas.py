"""The JSON shapes of the history."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class KnownMetric(BaseModel):
    """A metric that something was remembered of."""

    metric: str
    unit: str
    labels: list[dict[str, str]] = Field(description="Its series: the labels of each.")
    hosts: list[str] = Field(description="The machines that measured it; empty where there is only this one.")


class HistorySeries(BaseModel):
    """One line of a chart."""

    labels: dict[str, str]
    hosts: list[str] = Field(description="The machines whose samples are in it; empty where there is only this one.")
    points: list[tuple[int, float, float, float]] = Field(
        description="[start of the step in Unix seconds, mean, min, max]; steps without a sample have no point."
    )
    gaps: list[tuple[int, int]] = Field(description="Stretches without samples: [from, to] in Unix seconds.")


class MetricHistory(BaseModel):
    """What was measured in a range: points of equal steps, each made of all samples in it."""

    model_config = ConfigDict(populate_by_name=True)

    metric: str
    unit: str
    from_: datetime = Field(alias="from", description="Start of the first step: up to one step before the asked one.")
    to: datetime
    step_seconds: int
    tier_seconds: int = Field(description="What the points are made of: 3600 and 60 are stored figures, less samples.")
    series: list[HistorySeries]
