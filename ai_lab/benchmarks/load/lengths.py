"""How many words a prompt needs to have the wanted number of tokens, by the server's own count.

One text serves all arms. It is made for the first arm, and with each other one its tokens are counted and recorded:
arms with the same tokenizer get the same length, and models with different ones get the same work in words, which is
what somebody who chooses between them would give them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ai_lab.benchmarks.load.prompts import Length, PromptSource
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.targets.target import Target
from ai_lab.errors import ContextOverflow, ProviderError, ProviderTimeout

_MOST_PROBES = 4
_TOLERANCE = 0.01  # of the wanted length, but at least one token
_TOKENS_PER_WORD = 1.12  # a guess for the second probe; with punctuation, for the words of corpus.py
_LEAST_TOKENS_PER_WORD = 0.9  # every word has one; a count that grows slower is of a prompt that was cut
_TRIES = 3
_NOISE_WORDS = 2  # prompts that differ by more words than that do not have equally many tokens


async def calibrate(
    plan: Plan, source: PromptSource, targets: Mapping[str, Target], *, context_tokens: int | None = None
) -> Length:
    """Find the length of prompts with at most 4 probes of the first arm, and count it once with each other arm.

    The first probe has no words: what template, number and instruction take. The second is a guess, the others follow
    by the secant through the two nearest until the count is within 1 % (or one token). The user's own texts have the
    length that they have; for them only a shared part is measured.

    Args:
        plan: What is wanted.
        source: Writes the probes; set its ``length`` to the result.
        targets: Of all arms by name, in the plan's order.
        context_tokens: Of the first arm, where it is known: what does not fit is refused before a long probe.

    Returns:
        Where the server counts nothing, as many words as tokens were wanted, and a note that says so.

    Raises:
        ContextOverflow: prompt and answer do not fit the model's context.
        LabError: a server did not answer.
    """
    prompts = plan.prompts
    wanted = prompts.shared_tokens if prompts.texts else prompts.tokens
    if wanted is None or (prompts.texts and prompts.keep_exact):
        return Length()
    first, *others = targets.items()
    if context_tokens is not None and wanted + plan.output_tokens > context_tokens:
        raise _overflow(plan, f"{first[0]} has a context of {context_tokens} tokens")
    counted = await _probe(plan, source, first, wanted)
    if counted is None:
        note = f"{first[0]} does not count the tokens of prompts: {wanted} words were taken for {wanted} tokens."
        shared = prompts.shared_tokens or 0
        return Length(wanted, shared, dict.fromkeys(targets), note=note)
    goal = wanted + counted[0] if prompts.texts else wanted
    words = _nearest(counted, goal)[0]
    length = Length(words, _shared_words(counted, words, prompts.shared_tokens or 0), probes=list(counted.items()))
    length.note = _note(first[0], counted, words, goal)
    if not prompts.texts:
        length.achieved_tokens[first[0]] = counted[words]
        for name, target in others:
            length.achieved_tokens[name] = await _count(plan, source, name, target, words)
    return length


async def _probe(plan: Plan, source: PromptSource, arm: tuple[str, Target], wanted: int) -> dict[int, int] | None:
    """Return the tokens of each number of words that was tried, or None where the server does not count."""
    counted: dict[int, int] = {}
    words, goal = 0, wanted
    while len(counted) < _MOST_PROBES and words not in counted:
        tokens = await _count(plan, source, *arm, words)
        if tokens is None:
            return None
        equal = [other for other, count in counted.items() if count == tokens and abs(other - words) > _NOISE_WORDS]
        if 0 in equal:
            return None  # a figure, but no count
        if equal or (counted and tokens - counted[0] < _LEAST_TOKENS_PER_WORD * words):
            raise _overflow(plan, f"{arm[0]} counted {tokens} tokens of a prompt of {words} words: it cut the rest off")
        if not counted and plan.prompts.texts:
            goal += tokens
        counted[words] = tokens
        if (tokens > goal and words == 0) or abs(tokens - goal) <= _tolerance(goal):
            break
        words = _next_words(counted, goal)
    return counted


def _next_words(counted: dict[int, int], goal: int) -> int:
    if len(counted) == 1:
        return round((goal - counted[0]) / _TOKENS_PER_WORD)
    (words, tokens), (other_words, other_tokens) = sorted(counted.items(), key=lambda one: abs(one[1] - goal))[:2]
    tokens_per_word = (tokens - other_tokens) / (words - other_words)
    return max(0, words + round((goal - tokens) / max(tokens_per_word, _LEAST_TOKENS_PER_WORD)))


def _nearest(counted: dict[int, int], goal: int) -> tuple[int, int]:
    return min(counted.items(), key=lambda one: abs(one[1] - goal))


def _shared_words(counted: dict[int, int], words: int, shared_tokens: int) -> int:
    """Return the words that have ``shared_tokens`` tokens, by the slope that the probes found."""
    if not words or not shared_tokens:
        return 0
    return max(1, min(words, round(shared_tokens * words / (counted[words] - counted[0]))))


def _note(name: str, counted: dict[int, int], words: int, goal: int) -> str | None:
    tokens = counted[words]
    if abs(tokens - goal) <= _tolerance(goal):
        return None
    if words == 0:
        return f"The shortest prompt has {tokens} tokens by the count of {name}: template, number and instruction."
    return f"{tokens} tokens are the nearest to {goal} that {len(counted)} probes found."


def _tolerance(goal: int) -> float:
    return max(1, _TOLERANCE * goal)


async def _count(plan: Plan, source: PromptSource, name: str, target: Target, words: int) -> int | None:
    shared_words = min(words, round((plan.prompts.shared_tokens or 0) / _TOKENS_PER_WORD))
    for tries_left in reversed(range(_TRIES)):
        try:
            return await target.prompt_tokens(source.probe(words, shared_words))
        except ContextOverflow as error:
            raise _overflow(plan, f"{name} refused a prompt of {words} words ({error.detail.rstrip('.')})") from error
        except ProviderError as error:  # of a server that fails now and then the failures are to be counted
            if not tries_left or isinstance(error, ProviderTimeout):
                raise
    return None


def _overflow(plan: Plan, what: str) -> ContextOverflow:
    wanted = plan.prompts.shared_tokens if plan.prompts.texts else plan.prompts.tokens
    return ContextOverflow(
        f"{what}; prompts of {wanted} tokens with answers of {plan.output_tokens} do not fit. "
        "Ask for fewer tokens, or give the model a larger context (Ollama: the option num_ctx; embedded: "
        "engine.context_tokens).",
        param="prompts.tokens",
    )
