"""Durations as a histogram that can be merged and whose quantiles are within 1 % of the true ones.

Buckets grow by a constant factor g = 1.02: bucket i holds durations d with g^(i-1) < d <= g^i microseconds, so
i = ceil(log_g(d)). The value 2 g^i / (g + 1) is equally far from both ends of its bucket, relative to them:
(g - 1) / (g + 1) = 0.99 %. This is the mapping of DDSketch (Masson, Rim, Lee: "DDSketch: A fast and fully-mergeable
quantile sketch with relative-error guarantees", VLDB 2019), without its limit on the number of buckets: 1 us to 30 days
are 1,450 of them, and only those in use are kept.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

_GROWTH = 1.02
#: Bound on the relative error of quantiles of 1 us and more.
QUANTILE_ERROR = (_GROWTH - 1) / (_GROWTH + 1)
_PER_LOG = 1 / math.log(_GROWTH)
_MOST_SECONDS = 30 * 86400.0
_LAST_BUCKET = math.ceil(math.log(_MOST_SECONDS * 1e6) * _PER_LOG)
_VERSION = b"\x01"
_ROUNDING = 1 + 1e-6
_LANE_BYTES = 8
_LANE_BITS = 8 * _LANE_BYTES
_MOST_BYTES = 64 * 1024 * 1024


class DamagedCounts(ValueError):
    """Stored bytes are not, or no longer, what was encoded."""


class DurationHistogram:
    """How often which durations occurred. Times are in seconds; not safe for several threads at once."""

    __slots__ = ("_buckets", "_stored", "maximum", "minimum", "sum")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = defaultdict(int)
        # Counts that come from storage are one number, with 64 bits for each bucket: all of them are added to others
        # at once, seven times as fast as one by one, and a window of a day is put together from thousands.
        self._stored = 0
        self.sum = 0.0
        self.minimum = math.inf
        self.maximum = 0.0

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts().values())

    def record(self, seconds: float) -> None:
        """Add one duration; below 0 counts as 0, above 30 days as 30 days. What is no number is ignored."""
        if seconds > 1e-6:  # noqa: PLR2004 - a microsecond, where the buckets begin
            if seconds > _MOST_SECONDS:  # noqa: PLR1730 - calls of min and max would cost a third of the whole
                seconds = _MOST_SECONDS
            self._buckets[math.ceil(math.log(seconds * 1e6) * _PER_LOG)] += 1
        elif seconds <= 1e-6:  # noqa: PLR2004 - as above; NaN is neither
            seconds = max(seconds, 0.0)
            self._buckets[0] += 1
        else:
            return
        self.sum += seconds
        if seconds < self.minimum:  # noqa: PLR1730 - as above
            self.minimum = seconds
        if seconds > self.maximum:  # noqa: PLR1730 - as above
            self.maximum = seconds

    def merge(self, other: DurationHistogram) -> None:
        """Add all that ``other`` holds."""
        mine = self._buckets
        for bucket, count in other._buckets.items():
            mine[bucket] += count
        self._stored += other._stored
        self.sum += other.sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def count_up_to(self, seconds: float) -> int:
        """Return how many durations are at most ``seconds``, or up to 2 % more than it."""
        last = max(0, math.ceil(math.log(seconds * 1e6) * _PER_LOG))
        return sum(count for bucket, count in self.counts().items() if bucket <= last)

    def quantiles(self, shares: tuple[float, ...]) -> list[float | None]:
        """Return for each share (0 to 1, ascending) the smallest duration that so many are not above, within 1 %.

        None where nothing was recorded. The quantiles of 0 and 1 are exact.
        """
        ranked = sorted(self.counts().items())
        total = sum(count for _, count in ranked)
        if not total:
            return [None] * len(shares)
        found: list[float | None] = []
        position = below = 0
        for share in shares:
            rank = min(total, max(1, math.ceil(share * total)))
            while below + ranked[position][1] < rank:
                below += ranked[position][1]
                position += 1
            if rank in {1, total}:
                found.append(self.minimum if rank == 1 else self.maximum)
            else:
                found.append(self._estimate(ranked[position][0]))
        return found

    def counts(self) -> dict[int, int]:
        """Return how many durations each bucket holds; buckets without any are left out."""
        if self._stored:
            run = self._stored.to_bytes(_LANE_BYTES * (_LAST_BUCKET + 1), "little")
            self._stored = 0
            for bucket, count in enumerate(struct.unpack(f"<{_LAST_BUCKET + 1}Q", run)):
                if count:
                    self._buckets[bucket] += count
        return self._buckets

    def _estimate(self, bucket: int) -> float:
        middle = 2 * _GROWTH**bucket / (_GROWTH + 1) * 1e-6
        return min(max(middle, self.minimum), self.maximum)


def pack(about: Any, histograms: Sequence[DurationHistogram]) -> bytes:
    """Return JSON data and histograms as bytes, which are a hundred or two per histogram.

    They are a version byte and then, compressed (with a checksum that shows damage): the length of the text (4 bytes);
    a JSON text of ``about`` and of sum, minimum, maximum, first bucket and number of buckets of each histogram; the
    counts of all buckets from the first one to the last (8 bytes each). Numbers are little-endian.
    """
    figures, runs = [], []
    for one in histograms:
        counts = one.counts()
        first = min(counts, default=0)
        length = max(counts) - first + 1 if counts else 0
        figures.append([one.sum, one.minimum if counts else 0, one.maximum, first, length])
        runs.append(struct.pack(f"<{length}Q", *(counts.get(bucket, 0) for bucket in range(first, first + length))))
    text = json.dumps([about, figures], separators=(",", ":"), allow_nan=False).encode()
    return _VERSION + zlib.compress(b"".join((struct.pack("<I", len(text)), text, *runs)))


def unpack(stored: bytes) -> tuple[Any, list[DurationHistogram]]:
    """Return what ``pack`` was given.

    Raises:
        DamagedCounts: these are not its bytes; the text says what is wrong.
    """
    if stored[:1] != _VERSION:
        raise DamagedCounts("Stored counts have an unknown format: damaged, or written by a newer version.")
    reader = zlib.decompressobj()
    try:
        body = reader.decompress(stored[1:], _MOST_BYTES)
        if not reader.eof or reader.unused_data:
            raise DamagedCounts("Stored counts are damaged: their end is missing or something follows it.")
        (length,) = struct.unpack_from("<I", body)
        about, figures = json.loads(body[4 : 4 + length])
        histograms = _histograms(figures, memoryview(body)[4 + length :])
    except (zlib.error, struct.error, ValueError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, DamagedCounts):
            raise
        raise DamagedCounts(f"Stored counts are damaged: {error}.") from error
    return about, histograms


def _histograms(figures: Any, runs: memoryview) -> list[DurationHistogram]:
    made, begin = [], 0
    for total, minimum, maximum, first, length in figures:
        made.append(one := DurationHistogram())
        if not length:
            continue
        end = begin + length * _LANE_BYTES
        is_sound = 0 <= first <= first + length <= _LAST_BUCKET + 1 and end <= len(runs)
        if not is_sound or not 0 <= minimum <= maximum <= min(_MOST_SECONDS, total * _ROUNDING):
            raise DamagedCounts("Stored counts are damaged: the figures of a histogram contradict each other.")
        one._stored = int.from_bytes(runs[begin:end], "little") << (_LANE_BITS * first)  # noqa: SLF001 - of this module
        one.sum, one.minimum, one.maximum = total, minimum, maximum
        begin = end
    if begin != len(runs):
        raise DamagedCounts("Stored counts are damaged: there are more than announced.")
    return made
