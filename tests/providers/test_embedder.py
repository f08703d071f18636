"""The embedder: tokens as the reference makes them, vectors that mean something, and memory given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ai_lab.errors import EngineError, ModelNotFound, UnsupportedFeature
from ai_lab.providers import ChatRequest, Message
from ai_lab.providers.embedder import MODEL, Embedder
from ai_lab.providers.registry import Providers
from ai_lab.providers.wordpiece import WordPiece
from ai_lab.settings import Settings
from tests.cache.near_opposites import near_opposites

MOST_TOKENS = 256
VOCABULARY = files("ai_lab.providers").joinpath("embedder_vocabulary.txt").read_text(encoding="utf-8").splitlines()
OURS = WordPiece(VOCABULARY, most_tokens=MOST_TOKENS)
TEXTS = [
    "",
    " ",
    "Hello, World!",
    "unaffable, unaffordable, antidisestablishmentarianism",
    "naïve Café ÀÉÎ ǅ ﬁ İstanbul ẞ",
    "機械学習は楽しい 한국어 ภาษาไทย",
    "\ufeffzero\u200bwidth\x00null\x0b\x85\u2028lines\ttabs\r\n",
    "a-b_c/d\\e $5 <tag> `code` e=mc² 🤖 ¿qué? „so“",
    "[CLS] [SEP] [MASK] [UNK] ##ing",
    "x" * 100,
    "x" * 101,
    "word " * 300,
    "1,234.5 3rd 0x1F",
    "e\u0301 and \u00e9",
]


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    """Give the reference implementation over the same vocabulary, with the steps that the model was trained with."""
    numbers = {piece: number for number, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])]
    )
    tokenizer.enable_truncation(MOST_TOKENS)
    return tokenizer


@pytest.fixture(scope="module")
def shared() -> Iterator[Embedder]:
    embedder = Embedder(idle_seconds=600)
    yield embedder
    asyncio.run(embedder.close())


@pytest_asyncio.fixture
async def embedder() -> AsyncIterator[Embedder]:
    embedder = Embedder(idle_seconds=0.05)
    yield embedder
    await embedder.close()


def test_the_vocabulary_is_whole() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 30_522
    assert [VOCABULARY.index(mark) for mark in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [
        0,
        100,
        101,
        102,
        103,
    ]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:30])
def test_tokens_are_those_of_the_reference(reference: Tokenizer, text: str) -> None:
    assert OURS.encode(text) == reference.encode(text).ids


def test_tokens_of_questions_are_those_of_the_reference(reference: Tokenizer) -> None:
    for text in (text for pair in near_opposites() for text in pair):
        assert OURS.encode(text) == reference.encode(text).ids


@given(text=st.text(st.characters(max_codepoint=0x058F) | st.characters(min_codepoint=0x2000, max_codepoint=0x2BFF)))
def test_tokens_of_any_text_are_those_of_the_reference(reference: Tokenizer, text: str) -> None:
    assert OURS.encode(text) == reference.encode(text).ids


async def test_vectors_tell_what_is_alike(shared: Embedder) -> None:
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    made = await shared.embed(MODEL, texts)
    first, second, third = made.vectors
    # As published for all-MiniLM-L6-v2 with these sentences: 0.7553 and -0.0143 or so at full precision.
    assert _cosine(first, second) == pytest.approx(0.755, abs=0.05)
    assert _cosine(first, third) < 0.2
    assert _cosine(first, first) == pytest.approx(1, abs=1e-5)
    assert made.usage
    assert made.usage.prompt_tokens == sum(len(OURS.encode(text)) for text in texts)


async def test_a_text_has_the_same_vector_in_any_company(shared: Embedder) -> None:
    text = "What is a gateway?"
    alone, among, again = await asyncio.gather(
        shared.embed(MODEL, [text]), shared.embed(MODEL, ["word " * 400, text, ""]), shared.embed(MODEL, [text])
    )
    assert alone.vectors[0] == among.vectors[1] == again.vectors[0]


async def test_it_makes_vectors_only_and_has_one_model(shared: Embedder) -> None:
    [model] = await shared.models()
    assert (model.name, model.context_tokens, model.capabilities) == (MODEL, MOST_TOKENS, frozenset({"embeddings"}))
    assert await shared.context_tokens(MODEL) == MOST_TOKENS
    assert await shared.count_tokens(MODEL, []) is None
    with pytest.raises(UnsupportedFeature, match="embeddings only"):
        await anext(shared.stream(ChatRequest(MODEL, [Message("user", "Hello")])))
    with pytest.raises(ModelNotFound, match=MODEL):
        await shared.embed("another", ["text"])


async def test_it_leaves_memory_when_idle_and_comes_back(embedder: Embedder) -> None:
    assert (await embedder.check()).detail == "idle"
    first = await embedder.embed(MODEL, ["text"])
    assert (await embedder.check()).detail == "loaded"
    async with asyncio.timeout(30):
        while (await embedder.check()).detail != "idle":  # noqa: ASYNC110 - a timer of its own
            await asyncio.sleep(0.01)
    assert await embedder.embed(MODEL, ["text"]) == first


async def test_a_caller_who_leaves_holds_nobody_up(embedder: Embedder) -> None:
    many = asyncio.create_task(embedder.embed(MODEL, ["word " * 400] * 1000))
    await asyncio.sleep(0.05)
    assert (await embedder.embed(MODEL, ["text"])).vectors  # takes its turn between the others' texts
    many.cancel()
    await asyncio.wait([many])
    assert many.cancelled()
    await embedder.close()
    with pytest.raises(EngineError, match="closed"):
        await embedder.embed(MODEL, ["text"])


async def test_it_is_a_provider_but_the_last_one() -> None:
    providers = Providers(Settings())
    try:
        assert (await providers.resolve(MODEL)).full_name == f"embedder/{MODEL}"
        assert (await providers.resolve(None)).provider.name != "embedder"
        assert [model.full_name for model in await providers.list_models()][-1] == f"embedder/{MODEL}"
    finally:
        await providers.close()


def _cosine(first: list[float], second: list[float]) -> float:
    return sum(one * other for one, other in zip(first, second, strict=True))
