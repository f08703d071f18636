"""Prompts get the length that was asked for by the count of the server, whatever its tokenizer; or say why not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from ai_lab.benchmarks.load.lengths import calibrate
from ai_lab.benchmarks.load.prompts import Length, PromptSource
from ai_lab.errors import ContextOverflow, ProviderUnavailable
from tests.benchmarks.scripted_target import ScriptedTarget, plan

Count = Callable[[str], int | None]


def tokenizer(tokens_per_word: float, template: int = 20) -> Count:
    """Return a count with a template, digits one by one, and so many tokens for other words."""

    def count(prompt: str) -> int:
        words = prompt.split()
        digits = sum(len(word) for word in words if word[0].isdigit())
        return template + digits + math.ceil(tokens_per_word * sum(not word[0].isdigit() for word in words))

    return count


async def lengths(
    count: Count, *others: Count, context_tokens: int | None = None, **prompts: Any
) -> tuple[Length, list[ScriptedTarget], PromptSource]:
    run = plan(arms=1 + len(others), prompts=prompts)
    source = PromptSource(run, "run")
    targets = [ScriptedTarget(count=one) for one in (count, *others)]
    source.length = await calibrate(
        run, source, dict(zip(run.arm_names(), targets, strict=True)), context_tokens=context_tokens
    )
    return source.length, targets, source


@pytest.mark.parametrize("tokens", [110, 128, 1000, 32_000])
@pytest.mark.parametrize("tokens_per_word", [1.0, 1.12, 1.6, 3.7])
async def test_length_is_within_a_hundredth_after_four_probes_at_most(tokens: int, tokens_per_word: float) -> None:
    count = tokenizer(tokens_per_word)
    length, (target,), source = await lengths(count, tokens=tokens)
    assert len(target.counted) <= 4
    assert len({prompt.split()[0] for prompt in target.counted}) == len(target.counted)
    step = max(1, 0.01 * tokens, tokens_per_word)
    assert abs((length.achieved_tokens["arm 0"] or 0) - tokens) <= step
    assert all(abs((count(source.measured(index, index)) or 0) - tokens) <= step for index in range(5))


async def test_a_tokenizer_that_is_not_even_takes_the_secant_more_than_once() -> None:
    def count(prompt: str) -> int:
        words = len(prompt.split())
        return words + words**2 // 1500

    length, (target,), _ = await lengths(count, tokens=1000)
    assert len(target.counted) == 4
    assert length.achieved_tokens["arm 0"] == pytest.approx(1000, rel=0.01)
    assert length.note is None


async def test_the_same_text_is_counted_once_by_every_other_arm() -> None:
    length, targets, _ = await lengths(tokenizer(1.1), tokenizer(1.1), tokenizer(2.2), tokens=500)
    first, equal, other = length.achieved_tokens.values()
    assert list(length.achieved_tokens) == ["arm 0", "arm 1", "arm 2"]
    assert first == equal
    assert (other or 0) > 1.8 * 500
    assert [len(target.counted) for target in targets[1:]] == [1, 1]


async def test_a_server_that_counts_nothing_gets_words_and_the_run_says_so() -> None:
    length, (target,), _ = await lengths(lambda _: None, tokens=200)
    assert (length.words, length.achieved_tokens) == (200, {"arm 0": None})
    assert "does not count" in (length.note or "")
    assert len(target.counted) == 1


async def test_a_count_that_is_always_the_same_is_no_count() -> None:
    length, _, _ = await lengths(lambda _: 1, tokens=200)
    assert (length.words, length.achieved_tokens) == (200, {"arm 0": None})


async def test_no_prompt_is_shorter_than_its_template() -> None:
    length, (target,), source = await lengths(tokenizer(1.0, template=300), tokens=128)
    assert length.words == 0
    assert len(target.counted) == 1
    assert str(length.achieved_tokens["arm 0"]) in (length.note or "")
    assert source.measured(0, 0) != source.measured(1, 1)


@pytest.mark.parametrize("tokens", [2200, 3000, 10_000])
async def test_a_server_that_cuts_long_prompts_is_found_out(tokens: int) -> None:
    whole = tokenizer(1.1)
    with pytest.raises(ContextOverflow, match=r"cut the rest off.*num_ctx"):
        await lengths(lambda prompt: min(2048, whole(prompt) or 0), tokens=tokens)


async def test_a_server_that_refuses_long_prompts_is_asked_for_less() -> None:
    def count(prompt: str) -> int:
        if len(prompt.split()) > 500:
            raise ContextOverflow("The context has 512 tokens.")
        return len(prompt.split())

    with pytest.raises(ContextOverflow, match=r"arm 0 refused .*The context has 512 tokens.*fewer tokens"):
        await lengths(count, tokens=600)


async def test_a_known_context_is_held_against_the_plan_before_any_probe() -> None:
    target = ScriptedTarget()
    run = plan(prompts={"tokens": 4000}, output_tokens=200)
    with pytest.raises(ContextOverflow, match="4096"):
        await calibrate(run, PromptSource(run, "run"), {"one": target}, context_tokens=4096)
    assert not target.counted


async def test_a_server_that_cannot_be_reached_ends_it() -> None:
    def count(_: str) -> int:
        raise ProviderUnavailable("Nobody answers.")

    with pytest.raises(ProviderUnavailable):
        await lengths(count)


async def test_shared_words_have_the_shared_tokens() -> None:
    length, _, source = await lengths(tokenizer(1.25), mode="shared_prefix", tokens=800, shared_tokens=400)
    assert length.shared_words == pytest.approx(400 / 1.25, abs=4)
    assert len(source.measured(0, 0).split("\n\n")[1].split()) == length.shared_words
    assert length.achieved_tokens["arm 0"] == pytest.approx(800, rel=0.01)


async def test_own_texts_are_as_long_as_they_are_and_only_their_shared_part_is_measured() -> None:
    length, (target,), _ = await lengths(tokenizer(1.25), texts=["What is rain?"])
    assert length == Length()
    assert not target.counted
    length, (target,), source = await lengths(
        tokenizer(1.25), texts=["What is rain?"], mode="shared_prefix", shared_tokens=100
    )
    assert length.shared_words == pytest.approx(80, abs=1)
    assert len(source.measured(0, 0).split()) == length.shared_words + 5
