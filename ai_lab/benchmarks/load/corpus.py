"""A text of any length that is like English, made of a few hundred short and frequent words.

Most tokenizers have each of these words as one token, so that words and tokens grow alike; and as no text is copied,
there is nothing that a model could know by heart.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

_NOUNS = """
apple arm baby bag ball band bank bed bell bird board boat body book bottle box boy bread bridge brother building bus
car cat chair child church city class clock cloud club coat color corner country cow cup day desk doctor dog door dream
dress ear earth egg engine eye face family farm father field finger fire fish floor flower food foot forest friend
game garden gate girl glass gold group hair hall hand hat head heart hill home horse hotel hour house ice island job
key king kitchen lake land leg letter light line lion machine man map market master meal milk mind minute moon morning
mother mountain mouth music name neck night nose ocean office page paper park party path pen people picture place plan
plane plant plate pool queen rain ring river road rock room rose salt school sea season shadow ship shirt shoe shop
sister sky snow son song spring star station stone storm story street summer sun table teacher team tower town train
tree valley village voice wall war watch water weather week wheel wind window winter woman wood word world year
"""
_ADJECTIVES = """
big blue bright brown clean clear cold cool dark deep dry early empty fair fast final fine fresh full good gray great
green happy heavy high hot huge kind large late light little long low narrow new nice old open plain poor proud quick
quiet rare red rich round sad safe sharp short silent simple slow small smart soft strange strong sweet tall thick thin
tiny warm weak white wide wild wise yellow young
"""
_VERBS = """
asked broke brought built called carried caught changed chose closed covered crossed drew drove entered followed forgot
found gave heard held helped hit kept knew left liked loved made met moved needed opened paid passed played pulled
pushed reached remembered saw sent showed sold stopped studied taught told took touched turned used visited wanted
washed watched won wrote
"""
_PREPOSITIONS = """
above across after along around before behind below beside between by for from in near of on over past through to toward
under until upon with without
"""
_JOINS = "and because but so then until when where while"
_THE = "the a this that one every my his her our their another"
#: A sentence has 19 words: the small bird found a stone near the river while ...
_SENTENCE = [
    kind.split()
    for kind in (
        *(_THE, _ADJECTIVES, _NOUNS, _VERBS, _THE, _NOUNS, _PREPOSITIONS, _THE, _ADJECTIVES, _NOUNS),
        *(_JOINS, _THE, _NOUNS, _VERBS, _THE, _ADJECTIVES, _NOUNS, _PREPOSITIONS, _NOUNS),
    )
]


def sentences(key: Sequence[int], words: int) -> str:
    """Return ``words`` words in sentences, the same for the same key of integers (numpy's ``SeedSequence``).

    A longer text of the same key begins with the shorter one. The last sentence ends where the words do.
    """
    if words <= 0:
        return ""
    drawn = np.random.default_rng(key).integers(0, 1 << 32, size=words).tolist()
    length = len(_SENTENCE)
    text = [kinds[number % len(kinds)] for kinds, number in zip(itertools.cycle(_SENTENCE), drawn, strict=False)]
    for first in range(0, words, length):
        text[first] = text[first].capitalize()
        last = min(first + length, words) - 1
        text[last] += "."
    return " ".join(text)


def corpus_sha256() -> str:
    """Return the digest of what texts are made of; texts of one key and digest are the same."""
    return hashlib.sha256("\n".join(" ".join(kind) for kind in _SENTENCE).encode()).hexdigest()
