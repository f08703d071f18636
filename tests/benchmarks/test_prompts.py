"""Prompts: what has to differ differs from its first word on, and what has to be equal is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from ai_lab.benchmarks.load.corpus import corpus_sha256, sentences
from ai_lab.benchmarks.load.prompts import INSTRUCTION, Length, PromptSource
from tests.benchmarks.scripted_target import plan

CORPUS = "d962148aa05c3738"
FIRST_WORDS = "Another final map paid another board."
TEXTS = ["What is rain?", "What is snow?", "What is hail?"]


def source(run_id: str = "run", *, attempt: int = 0, seed: int = 0, arms: int = 1, **prompts: Any) -> PromptSource:
    length = Length(words=60, shared_words=20 if prompts.get("mode") == "shared_prefix" else 0)
    return PromptSource(plan(prompts=prompts, seed=seed, arms=arms), run_id, attempt=attempt, length=length)


def first_words(prompts: Iterable[str]) -> list[str]:
    return [prompt.split()[0] for prompt in prompts]


def body(prompt: str) -> str:
    return prompt.split("\n\n", 1)[1]


def common_characters(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def test_nothing_that_is_ever_sent_begins_like_anything_else() -> None:
    sent: list[str] = []
    for writer in (source(), source(attempt=1), source("other run"), source(seed=1, run_id="third")):
        sent += [writer.measured(index, index) for index in range(300)]
        sent += [writer.warm_up(arm, turn) for arm in range(3) for turn in range(20)]
        sent += [writer.probe(words) for words in (0, 10, 10, 500)]
    assert len(set(first_words(sent))) == len(sent)


def test_numbers_are_spread_so_that_little_is_in_common_even_by_digits() -> None:
    prompts = sorted(source().measured(index, 0)[:15] for index in range(10_000))
    assert max(common_characters(one, other) for one, other in itertools.pairwise(prompts)) <= 5
    in_turn = [source().measured(index, 0) for index in range(100)]
    assert sum(one[0] == other[0] for one, other in itertools.pairwise(in_turn)) == 0


def test_the_body_depends_on_seed_and_position_alone() -> None:
    assert body(source("one").measured(5, 3)) == body(source("two", attempt=4).measured(17, 3))
    assert body(source().measured(5, 3)) != body(source().measured(5, 4))
    assert body(source().measured(5, 3)) != body(source(seed=1).measured(5, 3))
    assert source().measured(5, 3) == source().measured(5, 3)


def test_shared_prefix_begins_alike_in_a_run_and_differs_after_it_and_from_run_to_run() -> None:
    one, other = (source(mode="shared_prefix", shared_tokens=30).measured(index, index) for index in (0, 1))
    shared = common_characters(one, other)
    assert len(one[:shared].split()) == 21  # the run's number and 20 words
    assert one[shared:].split()[0].isdigit()
    assert body(one[shared:]) != body(other[shared:])
    next_run = source("next", mode="shared_prefix", shared_tokens=30).measured(0, 0)
    assert common_characters(one, next_run) < 5
    warm_up = source(mode="shared_prefix", shared_tokens=30).warm_up(0, 0)
    assert common_characters(one, warm_up) >= shared - 15
    probe = source(mode="shared_prefix", shared_tokens=30).probe(60)
    assert common_characters(one, probe) < 15


def test_repeat_is_one_prompt_for_all_and_another_one_in_the_next_run() -> None:
    writer = source(mode="repeat")
    again = source(mode="repeat", attempt=2)
    prompts = {writer.measured(index, index) for index in range(20)}
    assert len(prompts | {writer.warm_up(0, 0), writer.warm_up(1, 3), again.measured(7, 7)}) == 1
    assert source("next", mode="repeat").measured(0, 0)[:15] != writer.measured(0, 0)[:15]
    assert common_characters(writer.probe(60), writer.measured(0, 0)) < 15


def test_own_texts_come_in_turn_behind_a_number() -> None:
    writer = source(texts=TEXTS)
    prompts = [writer.measured(index, index) for index in range(6)]
    assert [body(prompt) for prompt in prompts] == TEXTS * 2
    assert len(set(first_words(prompts))) == 6
    assert writer.mode == "unique"


def test_own_texts_with_a_shared_part_in_front() -> None:
    writer = source(texts=TEXTS, mode="shared_prefix", shared_tokens=30)
    one, other = writer.measured(0, 0), writer.measured(1, 1)
    assert len(one[: common_characters(one, other)].split()) == 21
    assert one.endswith(TEXTS[0])


def test_exact_texts_are_unchanged_and_the_mode_says_what_that_means() -> None:
    load = {"mode": "closed", "requests": 3}
    few = PromptSource(plan(prompts={"texts": TEXTS, "keep_exact": True}), "run")  # 10 requests of 3 texts
    enough = PromptSource(plan(prompts={"texts": TEXTS, "keep_exact": True}, load=load), "run")
    assert [few.measured(index, index) for index in range(4)] == [*TEXTS, TEXTS[0]]
    assert (few.mode, enough.mode) == ("repeat", "exact")
    assert few.warm_up(0, 0) in TEXTS
    assert enough.warm_up(0, 0).endswith(tuple(TEXTS))
    assert enough.warm_up(0, 0) not in TEXTS  # else the warm-up would have put a measured prompt into the cache
    arms = PromptSource(plan(prompts={"texts": TEXTS, "keep_exact": True}, load=load, arms=2), "run")
    assert arms.mode == "repeat"


def test_models_are_told_to_go_on_and_short_prompts_are_told_so_shortly() -> None:
    assert source().measured(0, 0).endswith(INSTRUCTION)
    assert len(source(tokens=20).probe(0)) < 50


def test_text_has_the_words_that_were_asked_for_and_grows_at_its_end() -> None:
    assert [len(sentences([1], words).split()) for words in (0, 1, 7, 19, 20, 1000)] == [0, 1, 7, 19, 20, 1000]
    assert sentences([1], 100).startswith(sentences([1], 30).removesuffix("."))
    assert sentences([1], 100) != sentences([2], 100)
    assert sentences([1], 100).endswith(".")


def test_text_of_a_seed_is_the_same_forever() -> None:
    """A rerun of an old run sends the same; whoever changes the corpus changes its digest, and this test."""
    assert corpus_sha256().startswith(CORPUS)
    assert sentences([0, 4, 0], 6) == FIRST_WORDS


@pytest.mark.parametrize("mode", ["unique", "repeat"])
def test_facts_tell_what_was_sent(mode: str) -> None:
    writer = source(mode=mode)
    writer.length.achieved_tokens = {"arm 0": 128}
    facts = writer.facts()
    assert facts["mode"] == mode
    assert facts["corpus_sha256"] == corpus_sha256()
    assert facts["achieved_tokens"] == {"arm 0": 128}
    assert Length(**writer.length.to_dict()) == writer.length
    assert "texts_sha256" in source(texts=TEXTS).facts()
