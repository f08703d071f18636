"""How long models take to their first token, as this process has seen it lately."""

from __future__ import annotations

#: The share of the newest measurement in the mean: of 90 % of the weight, the last ten have it.
_WEIGHT = 0.2
#: Models measured at a time; names come from requests.
_MOST = 1000


class Pace:
    """A moving mean of the time to the first token for each model, in milliseconds."""

    def __init__(self) -> None:
        self._mean_ms: dict[str, float] = {}

    def measured(self, model: str, first_token_ms: float) -> None:
        """Take in one measurement; ``model`` is ``provider/model``."""
        before = self._mean_ms.pop(model, first_token_ms)
        self._mean_ms[model] = before + _WEIGHT * (first_token_ms - before)
        if len(self._mean_ms) > _MOST:
            del self._mean_ms[next(iter(self._mean_ms))]  # the one that was asked least lately

    def of(self, model: str) -> float | None:
        """Return the mean, or None where the model was not measured yet."""
        return self._mean_ms.get(model)
