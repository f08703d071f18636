"""The history of measurements, in three levels, and the counts of operations. Times are whole seconds since 1970, UTC.

None of these tables refers to another by a foreign key: a check for each of a million small rows costs more than it
guards. Small rows lie in the order of their keys (on SQLite without a second index), so a query of one series reads
neighbours. Slots of operations do not: SQLite would put all but the smallest on pages of their own, a third more room.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from ai_lab.database.orm import metadata

metric_series = Table(
    "metric_series",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("host", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("labels", Text, nullable=False),  # JSON with sorted keys and no blanks: equal labels are equal texts
    Column("unit", String(32), nullable=False),
    UniqueConstraint("host", "name", "labels"),
    sqlite_autoincrement=True,  # the number of a series that is gone never comes back for another one
)

metric_samples = Table(
    "metric_samples",
    metadata,
    Column("series_id", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float, nullable=False),
    sqlite_with_rowid=False,
)

metric_rollups = Table(
    "metric_rollups",
    metadata,
    Column("tier", Integer, primary_key=True, autoincrement=False),  # 60 or 3600 seconds
    Column("series_id", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    # Sum and count instead of a mean: hours made of minutes are then as exact as hours made of samples.
    Column("count", Integer, nullable=False),
    Column("sum", Float, nullable=False),
    Column("min", Float, nullable=False),
    Column("max", Float, nullable=False),
    sqlite_with_rowid=False,
)

operation_slots = Table(
    "operation_slots",
    metadata,
    Column("tier", Integer, primary_key=True, autoincrement=False),  # seconds: 10, 300, 3600 or 86400
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("writer_id", String(36), primary_key=True),
    Column("counts", LargeBinary, nullable=False),
)
