"""Whether two questions can mean the same, judged by their words: it holds back what vectors miss.

"turn on the light" and "turn off the light" have nearly the same vector, and so have questions that differ in a number,
a name, a negation or in who does what to whom. So the words decide and the vector only confirms: each question is
brought into a form without what changes nothing (capitals, punctuation, articles, plurals, short forms, ways to begin a
question), and both forms must be equal, word for word and in the same order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ai_lab.cache import gate_words as english

#: Another one makes all forms that were stored before unfindable.
VERSION = 1

#: Two questions can mean the same if their forms are equal.
Form = tuple[str, ...]

#: Typographic apostrophes, quotation marks, the blank that is not broken, and the dash of ranges.
_TYPOGRAPHY = str.maketrans("\u2019\u2018\u00b4\u201c\u201d\u201e\u00a0\u2013", "'''\"\"\" -")
#: Code, formulas, quotations, lists and what follows a colon. A language's name (C++, C#) is none of these.
_LITERAL = re.compile(
    r"""[*=<>{}\[\]\\|^~_@#`"\r\n\t] | :(?!\d) | \+(?!\s*(?:$|\W)) | (?<!\w)' | (?<!s)'(?!\w) | \w\( | https?:"""
    r"""| ^(?=.*[-+*/]\s*\d).*\(""",
    re.VERBOSE,
)
_LANGUAGE = re.compile(r"\b[A-Za-z](?:\+\+|#)(?!\w)")
_TOKEN = re.compile(
    r"""
    [A-Za-z](?:\+\+|\#)(?!\w)               # C++, C#
  | (?:[A-Za-z]\.){2,}                      # U.S.
  | \d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w,])   # 50,000
  | \w*\d\w*(?:[.:]\w*\d\w*)*!?             # 3, 1.5, 12:30, mp3, 5!
  | (?<!\w)-(?=[.\d]) | (?<=\d)\ *-\ *(?=\d)  # minus, or from … to
  | (?<!\w)\.(?=\w)                         # .NET
  | [^\W\d]+(?:[.'][^\W\d]+)*               # words, short forms, file names
  | \S
    """,
    re.VERBOSE,
)
_BRITISH_OUR = re.compile(r"(?<=col|fav|lav|avi|lab|ghb|hon|hum|rum|arb|arm|vap|eav|tum)our")
_BRITISH_ISE = re.compile(r"is(?=(?:e|ed|er|ing|ation|able)$)")
_PRISE_LENGTH = 5  # prise is not prize
_SENTENCE_ENDS = frozenset(".?!;")
_PUNCTUATION = frozenset(".,;:!?'()-—…")
_ASCII_SHARE = 0.95
_UNIT_LENGTH = 4
_SHORTEST_PLURAL = 4


def form(question: str) -> Form | None:
    """Return the form by which a question is compared, None where it cannot be judged.

    It can be judged in plain English only: what changes nothing there may decide in another language, in code, in a
    formula or a quotation, and where the wording itself is what is asked about.
    """
    text = _typed(question)
    tokens = _TOKEN.findall(text)
    plain = {part for word in tokens for part in _spelled_out(word.lower()).split()}
    is_english = _is_latin(text) and not english.ENGLISH.isdisjoint(plain)
    if not is_english or not english.ABOUT_WORDING.isdisjoint(plain) or _LITERAL.search(_LANGUAGE.sub("C", text)):
        return None
    return tuple(_without_order(_without_openings(_without_articles(list(_words(tokens))))))


def tidy(question: str) -> str:
    """Return the text whose vector is compared, for a question that has a form.

    A missing question mark or a short form ("what's") moves the vector of a short question further than another word.
    """
    words = [_spelled_out(word.lower()) if "'" in word else word for word in _typed(question).split()]
    return " ".join(words).rstrip(" .?!") + "?"


def _typed(question: str) -> str:
    return unicodedata.normalize("NFC", question).translate(_TYPOGRAPHY).strip()


def _is_latin(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) >= _ASCII_SHARE * len(letters)


def _words(tokens: list[str]) -> Iterator[str]:
    """Yield words in lower case and without endings, numbers, and symbols that are no punctuation."""
    shouts = all(word == word.upper() for word in tokens)
    for at, word in enumerate(tokens):
        before = tokens[at - 1] if at else "."
        if word in _PUNCTUATION and not (word in "-." and at + 1 < len(tokens) and tokens[at + 1][0].isdigit()):
            if word in _SENTENCE_ENDS and at + 1 < len(tokens) and tokens[at + 1] not in _PUNCTUATION:
                yield "."
        elif word[0].isdigit():
            yield word.replace(",", "")
        elif word[0].isalpha():
            yield from _word(word, before, shouts=shouts)
        else:
            yield word.strip()


def _word(word: str, before: str, *, shouts: bool) -> Iterator[str]:
    lower = word.lower()
    is_initials = word.endswith(".")
    is_name = word[0].isupper() and not shouts and before not in _SENTENCE_ENDS
    if is_initials:
        yield word.replace(".", "").upper()
    elif (len(word) == 1 and lower not in {"a", "i"}) or (before[0].isdigit() and len(word) < _UNIT_LENGTH):
        yield word  # a letter, a unit
    elif word.isupper() and not shouts and lower in english.OTHER_IN_CAPITALS and (lower != "a" or is_name):
        yield word
    elif "." in word or (is_name and lower in english.OTHER_WITH_CAPITAL):
        yield word  # a file, an address; a name
    else:
        for part in _spelled_out(lower).split():
            yield english.SAME.get(part) or _american(part if is_name else _singular(part))


def _spelled_out(word: str) -> str:
    if word in english.SHORT_FORMS:
        return english.SHORT_FORMS[word]
    for ending, whole in english.ENDINGS.items():
        if word.endswith(ending):
            return word[: -len(ending)] + whole
    return word


def _singular(word: str) -> str:
    """Return a word without the ending of a plural, or of a verb's third person."""
    if len(word) < _SHORTEST_PLURAL or word in english.NO_PLURALS or word.endswith(("ss", "us", "is", "ics")):
        return word
    if not word.endswith(("ie", "ies", "che", "ches", "she", "shes", "sse", "sses", "xe", "xes")):
        return word.removesuffix("s")
    stem = word.removesuffix("s").removesuffix("e")  # the same of watch and watches, headache and headaches
    return f"{stem[:-1]}y" if stem.endswith("i") and len(stem) >= _SHORTEST_PLURAL else stem


def _american(word: str) -> str:
    """Return American spelling; applied to all words, so that it need not be right but the same."""
    word = _BRITISH_OUR.sub("or", word)
    return _BRITISH_ISE.sub("iz", word) if len(word) > _PRISE_LENGTH else word


def _without_articles(tokens: list[str]) -> list[str]:
    tokens = [word for word in tokens if word not in english.POLITE]
    if not tokens or tokens[0] not in english.OPENS_WITH_ARTICLES_FREE:
        return tokens
    neighbours = zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)
    return [word for before, word, after in neighbours if not _is_mere_article(before, word, after)]


def _is_mere_article(before: str, word: str, after: str) -> bool:
    if word not in english.ARTICLES:
        return False
    return word != "a" or (after not in english.WANTS_ARTICLE and before not in english.BEFORE_LETTER)


def _without_openings(tokens: list[str]) -> Iterator[str]:
    """Yield the words with one way to begin a question for those that say the same."""
    at = 0
    while at < len(tokens):
        word = tokens[at]
        begins = at == 0 or tokens[at - 1] == "."
        following = tokens[at + 1 : at + 4]
        if begins and word == "which":
            word = "what"
        yield word
        at += 1
        if word == "how" and " ".join(following[:2]) in english.HOW_ANYBODY:
            yield "i"
            at += 2
        elif word == "how" and following[:1] == ["to"]:
            yield "i"
            at += 1
        elif begins and word == "what" and following[:2] == ["is", "some"]:
            yield "is"
            at += 3 if following[2:] == ["of"] else 2


def _without_order(tokens: Iterator[str]) -> Iterator[str]:
    """Yield the words with both sides of "difference between … and …" in alphabetical order."""
    all_tokens = list(tokens)
    for at, word in enumerate(all_tokens):
        if word == "between" and at and all_tokens[at - 1] in english.EVEN_HANDED:
            rest = all_tokens[at + 1 :]
            if rest.count("and") == 1 and "." not in rest:
                middle = rest.index("and")
                first, last = sorted((rest[:middle], rest[middle + 1 :]))
                yield from (*all_tokens[: at + 1], *first, "and", *last)
                return
    yield from all_tokens
