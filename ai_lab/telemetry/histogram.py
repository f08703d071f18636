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
from collections.abc import Iterable, Sequence
from typing import Any, cast

_GROWTH = 1.02
#: Bound on the relative error of quantiles of 1 us and more.
QUANTILE_ERROR = (_GROWTH - 1) / (_GROWTH + 1)
_PER_LOG = 1 / math.log(_GROWTH)
_MOST_SECONDS = 30 * 86400.0
_LAST_BUCKET = math.ceil(math.log(_MOST_SECONDS * 1e6) * _PER_LOG)
_VERSION = b"\x01"
_ROUNDING = 1 + 1e-6
_MOST_BYTES = 64 * 1024 * 1024


class DamagedCounts(ValueError):
    """Stored bytes are not, or no longer, what was encoded."""


class StoredCounts:
    """Buckets and their counts as they were stored: to be read, not changed. A dictionary would take thrice as long."""

    __slots__ = ("_buckets", "_counts")

    def __init__(self, buckets: Sequence[int], counts: Sequence[int]) -> None:
        self._buckets, self._counts = buckets, counts

    def items(self) -> Iterable[tuple[int, int]]:
        """Return pairs of bucket and count."""
        return zip(self._buckets, self._counts, strict=True)

    def values(self) -> Iterable[int]:
        """Return the counts."""
        return self._counts


class DurationHistogram:
    """How often which durations occurred. Times are in seconds; not safe for several threads at once."""

    __slots__ = ("buckets", "maximum", "minimum", "sum")

    def __init__(self, stored: StoredCounts | None = None) -> None:
        # Of stored counts no more is asked than what both have; whoever records or merges into them has made a mistake.
        self.buckets: dict[int, int] = cast("dict[int, int]", stored) if stored else defaultdict(int)
        self.sum = 0.0
        self.minimum = math.inf
        self.maximum = 0.0

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.buckets.values())

    def record(self, seconds: float) -> None:
        """Add one duration; below 0 counts as 0, above 30 days as 30 days. What is no number is ignored."""
        if seconds > 1e-6:  # noqa: PLR2004 - a microsecond, where the buckets begin
            if seconds > _MOST_SECONDS:  # noqa: PLR1730 - calls of min and max would cost a third of the whole
                seconds = _MOST_SECONDS
            self.buckets[math.ceil(math.log(seconds * 1e6) * _PER_LOG)] += 1
        elif seconds <= 1e-6:  # noqa: PLR2004 - as above; NaN is neither
            seconds = max(seconds, 0.0)
            self.buckets[0] += 1
        else:
            return
        self.sum += seconds
        if seconds < self.minimum:  # noqa: PLR1730 - as above
            self.minimum = seconds
        if seconds > self.maximum:  # noqa: PLR1730 - as above
            self.maximum = seconds

    def merge(self, other: DurationHistogram) -> None:
        """Add all that ``other`` holds."""
        mine = self.buckets
        for bucket, count in other.buckets.items():
            mine[bucket] += count
        self.sum += other.sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def count_up_to(self, seconds: float) -> int:
        """Return how many durations are at most ``seconds``, or up to 2 % more than it."""
        last = max(0, math.ceil(math.log(seconds * 1e6) * _PER_LOG))
        return sum(count for bucket, count in self.buckets.items() if bucket <= last)

    def quantile(self, share: float) -> float | None:
        """Return the smallest duration that at least ``share`` (0 to 1) of all are not above, within 1 %.

        None where nothing was recorded. ``quantile(0)`` and ``quantile(1)`` are exact.
        """
        return self.quantiles((share,))[0]

    def quantiles(self, shares: tuple[float, ...]) -> list[float | None]:
        """Return several quantiles in one pass; ``shares`` ascend."""
        ranked = sorted(self.buckets.items())
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

    def _estimate(self, bucket: int) -> float:
        middle = 2 * _GROWTH**bucket / (_GROWTH + 1) * 1e-6
        return min(max(middle, self.minimum), self.maximum)

    def encode(self) -> bytes:
        """Return a compact form to store."""
        return pack(None, [self])

    @classmethod
    def decode(cls, stored: bytes) -> DurationHistogram:
        """Return what ``encode`` was called on, to be read and merged into others.

        Raises:
            DamagedCounts: these are not its bytes.
        """
        _, histograms = unpack(stored)
        if len(histograms) != 1:
            raise DamagedCounts("Stored counts are damaged: there is not one histogram.")
        return histograms[0]


def pack(about: Any, histograms: Sequence[DurationHistogram]) -> bytes:
    """Return JSON data and histograms as bytes, which are a few hundred per histogram.

    They are a version byte and then, compressed (with a checksum that shows damage): the length of the text (4 bytes);
    a JSON text of ``about`` and of sum, minimum, maximum and number of buckets of each histogram; all buckets (2 bytes
    each); all counts (8 bytes each). Numbers are little-endian. Python reads that at the speed of compiled code.
    """
    ranked = [sorted(histogram.buckets.items()) for histogram in histograms]
    figures = [
        [one.sum, one.minimum if pairs else 0, one.maximum, len(pairs)]
        for one, pairs in zip(histograms, ranked, strict=True)
    ]
    text = json.dumps([about, figures], separators=(",", ":"), allow_nan=False).encode()
    pairs = [pair for pairs in ranked for pair in pairs]
    form = f"<I{len(text)}s{len(pairs)}H{len(pairs)}Q"
    body = struct.pack(form, len(text), text, *(bucket for bucket, _ in pairs), *(count for _, count in pairs))
    return _VERSION + zlib.compress(body)


def unpack(stored: bytes) -> tuple[Any, list[DurationHistogram]]:
    """Return what ``pack`` was given; the histograms are to be read and merged into others.

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
        total = sum(figure[3] for figure in figures)
        numbers = struct.unpack(f"<{total}H{total}Q", body[4 + length :])
    except (zlib.error, struct.error, ValueError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, DamagedCounts):
            raise
        raise DamagedCounts(f"Stored counts are damaged: {error}.") from error
    return about, _histograms(figures, numbers[:total], numbers[total:])


def _histograms(figures: Any, buckets: Sequence[int], counts: Sequence[int]) -> list[DurationHistogram]:
    made, begin = [], 0
    for total, minimum, maximum, length in figures:
        end = begin + length
        is_sound = not length or (
            0 <= minimum <= maximum <= min(_MOST_SECONDS, total * _ROUNDING) and buckets[end - 1] <= _LAST_BUCKET
        )
        if not is_sound:
            raise DamagedCounts("Stored counts are damaged: the figures of a histogram contradict each other.")
        made.append(DurationHistogram(StoredCounts(buckets[begin:end], counts[begin:end])))
        if length:
            made[-1].sum, made[-1].minimum, made[-1].maximum = total, minimum, maximum
        begin = end
    return made
