"""What the gate knows of English: words whose difference changes nothing, and words that look so but do not."""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: One of these must be there for a text to pass as English.
ENGLISH = _set(
    "the what how why who whose which when where is are does do did can could should would of to my your and with "
    "this that if it from for"
)
#: Words by which a question begins where an article changes nothing ("Is he the father?" is not "Is he a father?").
OPENS_WITH_ARTICLES_FREE = _set("what which how why where when who can could should would do did will if i")
ARTICLES = _set("a an the")
#: Before these "a" decides ("few people", "a few people") or is no article at all ("vitamin a in milk").
WANTS_ARTICLE = frozenset({"", "."}) | _set("few little lot bit and or in of for is on to with was do")
#: After these it is a letter.
BEFORE_LETTER = _set(
    "vitamin hepatitis type plan grade class group level section part option point appendix size series influenza "
    "league team block row column note key factor"
)
#: Left out wherever they are.
POLITE = _set("please kindly")

SAME = {
    "are": "is",
    "am": "is",
    "does": "do",
    "has": "have",
    "an": "a",
    "relationship": "relation",
    "centre": "center",
    "theatre": "theater",
    "metre": "meter",
    "litre": "liter",
    "grey": "gray",
    "programme": "program",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
}
SHORT_FORMS = {
    **{f"{word}'s": f"{word} is" for word in sorted(_set("what who where how when why it that there here he she"))},
    "let's": "let us",
    "can't": "can not",
    "cannot": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "whats": "what is",
    "hows": "how is",
    "dont": "do not",
    "doesnt": "do not",
    "didnt": "did not",
    "isnt": "is not",
    "arent": "is not",
    "cant": "can not",
    "im": "i am",
    "ive": "i have",
}
ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'m": " am", "'s": ""}

#: After "how" these say the same.
HOW_ANYBODY = frozenset({f"{verb} {who}" for verb in ("do", "can", "could") for who in ("i", "we", "1")})

#: Between these and "and", at the end of a question, either may stand first.
EVEN_HANDED = _set("difference relation similarity connection")

#: In capitals they are other words (IT, US, WHO).
OTHER_IN_CAPITALS = _set("a it us who or and in on is as no so do go am pm he me all can will may aids not one")
#: With a capital they are other words; whether a sentence begins with them or means them cannot be told.
OTHER_WITH_CAPITAL = _set(
    "polish turkey china apple java rust go swift oracle windows window office word excel access outlook teams "
    "team slack discord signal ruby pascal ada mercury may march august job nice reading mobile bath cork hamlet "
    "orange shell target gap visa subway dove tide corona delta ring nest echo square stripe meta notion zoom "
    "steam unity spring flask spark hive pig storm docker puppet chef ant elm dart scratch julia crystal cocoa "
    "panda pandas jasmine mocha karma atom sublime edge safari opera chrome brave amazon jaguar puma python god "
    "bill mark will grant rose hope faith frank jack pat sue drew rob bob art guy gene ray earl dean christian "
    "catholic black white pole swede finn lent mass states cancer gemini aries leo pisces libra virgo titan pluto "
    "saturn word pages numbers keynote"
)
NO_PLURALS = _set(
    "is was has does this his hers its us as news arms goods customs pants series species always perhaps besides "
    "yes less plus windows glasses times teams pandas states means odds stairs thanks minutes spirits manners "
    "lens gas bus canvas atlas christmas chaos pros whereas regards contents grounds forces brains"
)

#: Questions about wording itself: there every letter counts.
ABOUT_WORDING = _set(
    "translate translation translated spell spelled spelt spelling grammar grammatical grammatically sentence "
    "sentences word words letter letters phrase phrases plural singular rhyme rhymes synonym synonyms antonym "
    "antonyms pronounce pronunciation capitalize capitalise uppercase lowercase character characters syllable "
    "syllables say rewrite rephrase paraphrase proofread correct correction edit summarize summarise repeat quote "
    "regex string strings article articles punctuation comma apostrophe verb noun adjective abbreviation acronym "
    "anagram palindrome reverse sort encode decode hash password print echo"
)
