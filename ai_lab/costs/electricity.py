"""What an answer of a model on this machine uses: watts for as long as it took, shared by all in the making."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal

from ai_lab.costs.prices import NANO
from ai_lab.costs.schemas import Attempted

_JOULES_PER_KWH = 3_600_000


class Electricity:
    """Reckons energy and its price.

    Args:
        watts: what the machine draws now, as it is measured; None where it cannot be.
        fixed_watts: of the settings, wins.
        price: US dollars per kWh; None: not known.
    """

    def __init__(self, watts: Callable[[], float | None], *, fixed_watts: float | None, price: float | None) -> None:
        self._watts = watts
        self._fixed_watts = fixed_watts
        self._price = None if price is None else Decimal(str(price))

    def used(self, attempted: Attempted) -> tuple[float | None, int | None]:
        """Return joules and nano-dollars; None: not known, or it was not this machine's.

        joules = watts * seconds / local_load (the mean number of answers in the making)
        nano-dollars = joules / 3.6e6 J/kWh * price * 1e9
        """
        if not attempted.is_local:
            return None, None
        watts = self._fixed_watts if self._fixed_watts is not None else self._watts()
        if watts is None or not math.isfinite(watts) or watts < 0:
            return None, None
        joules = watts * max(0.0, attempted.total_ms) / 1000 / max(1.0, attempted.local_load)
        if self._price is None:
            return joules, None
        cost = Decimal(str(joules)) * self._price * NANO / _JOULES_PER_KWH
        return joules, int(cost.to_integral_value(ROUND_HALF_EVEN))
