"""The text of every request: a number that no request ever had, then a body that depends on the seed alone.

A server keeps what it has read and reads only what is new from the first difference on. So the number comes first, and
everything that a run sends has its own: measured requests, warm-up and probes, of this run, of the same run taken up
again after a restart, and of any other. The bodies do not depend on it: the same seed gives every arm, and a rerun, the
same body at the same position.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ai_lab.benchmarks.load.corpus import corpus_sha256, sentences
from ai_lab.benchmarks.plan import GoodputSearch, Plan

#: What prompts have in common in truth: ``exact`` are a user's own texts, unchanged and each sent once.
PromptMode = Literal["unique", "shared_prefix", "repeat", "exact"]

INSTRUCTION = "Continue this text as a very long story with many details, and do not stop early."
SHORT_INSTRUCTION = "Continue at great length."
_SHORT_BELOW = 96  # tokens of a prompt that the long instruction would fill
_DIGITS = 15
_NUMBERS: int = 10**_DIGITS
#: Number k is (start + k x step) mod 10^15: all differ because the step has no factor in common with 10, and as it is
#: the golden ratio's part of 10^15 they are spread as evenly as can be: any n of them share log10(3 n) digits at most.
_STEP = 618_033_988_749_897
_WARM_UP_FROM = 10_000_000  # above all indices of measured requests
_PROBES_FROM = 20_000_000
_SHARED_BODY, _BODY = 3, 4  # tell these uses of the seed from others


@dataclass(slots=True)
class Length:
    """How many words make the wanted number of tokens, as it was found by ``lengths.calibrate``.

    Attributes:
        words: of the generated text, shared ones included, without number and instruction.
        shared_words: of them, the ones that all prompts begin with (mode shared_prefix).
        achieved_tokens: tokens of such a prompt by each arm's own count, template included; None: it does not count.
        probes: words and tokens of every probe of the first arm.
        note: why the length is not what was asked for.
    """

    words: int = 0
    shared_words: int = 0
    achieved_tokens: dict[str, int | None] = field(default_factory=dict)
    probes: list[tuple[int, int]] = field(default_factory=list)
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; ``Length(**values)`` reads them."""
        return asdict(self)


class PromptSource:
    """Writes the prompts of a run.

    Args:
        plan: Its prompts and its seed.
        run_id: Of this run; makes its numbers others than those of any other run.
        attempt: How often the run was taken up again: what it repeats must not be found in a cache.
        length: As ``lengths.calibrate`` found it. May be set later.
    """

    def __init__(self, plan: Plan, run_id: str, *, attempt: int = 0, length: Length | None = None) -> None:
        self.length = length or Length()
        self._plan = plan
        self._prompts = plan.prompts
        self._start = _drawn(f"{run_id}/{attempt}")
        self._run_number = f"{_drawn(run_id):0{_DIGITS}d}"
        self._probes = itertools.count(_PROBES_FROM)
        self._instruction = SHORT_INSTRUCTION if plan.prompts.tokens < _SHORT_BELOW else INSTRUCTION

    def measured(self, index: int, position: int) -> str:
        """Return the prompt of the request ``index``, whose body is the one of ``position``."""
        return self._prompt(self._number(index), position)

    def warm_up(self, arm: int, turn: int) -> str:
        """Return a prompt that is like the measured ones, and none of them (mode repeat: that very one)."""
        serial = _WARM_UP_FROM + 1000 * arm + turn
        prompt = self._prompt(self._number(serial), serial)
        return f"{self._number(serial)}\n\n{prompt}" if self.mode == "exact" else prompt

    def probe(self, words: int, shared_words: int = 0) -> str:
        """Return a prompt with ``words`` generated words that no cache knows, not even its shared part."""
        number = self._number(next(self._probes))
        front, shared = None, ""
        if self._prompts.mode == "shared_prefix":
            front, shared = self._number(next(self._probes)), self._sentences(_SHARED_BODY, 0, shared_words)
        return _written(front, shared, number, self._sentences(_BODY, 0, words - shared_words), self._instruction)

    @property
    def mode(self) -> PromptMode:
        """What the prompts have in common in truth, which is not what was asked for where texts are kept exact."""
        texts = self._prompts.texts
        if not (texts and self._prompts.keep_exact):
            return self._prompts.mode
        sends = self._plan.load.requests * len(self._plan.arms) * len(self._plan.levels())
        comes_again = len(set(texts)) < sends or isinstance(self._plan.load, GoodputSearch)
        return "repeat" if comes_again else "exact"

    def facts(self) -> dict[str, Any]:
        """Return what goes into the provenance of a run: mode, corpus, lengths."""
        texts = self._prompts.texts
        source = {"corpus_sha256": corpus_sha256()}
        if texts:
            source = {"texts_sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest()}
        return {"mode": self.mode, **source, **self.length.to_dict()}

    def _number(self, serial: int) -> str:
        return f"{(self._start + serial * _STEP) % _NUMBERS:0{_DIGITS}d}"

    def _prompt(self, number: str, position: int) -> str:
        prompts, length = self._prompts, self.length
        texts = prompts.texts
        if texts and prompts.keep_exact:
            return texts[position % len(texts)]
        front, shared = None, ""
        if prompts.mode == "repeat":
            number, position = self._run_number, position % len(texts) if texts else 0
        elif prompts.mode == "shared_prefix":
            front, shared = self._run_number, self._sentences(_SHARED_BODY, 0, length.shared_words)
        if texts:
            return _written(front, shared, number, texts[position % len(texts)])
        body = self._sentences(_BODY, position, length.words - length.shared_words)
        return _written(front, shared, number, body, self._instruction)

    def _sentences(self, use: int, position: int, words: int) -> str:
        return sentences([self._plan.seed, use, position], words)


def _written(front: str | None, shared: str, *parts: str) -> str:
    """Return a prompt of its parts; ``front`` is the number that the shared part has in front."""
    return "\n\n".join(part for part in (front or "", shared, *parts) if part)


def _drawn(name: str) -> int:
    """Return a number below 10^15 that depends on ``name`` alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % _NUMBERS
