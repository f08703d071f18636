"""No secret comes through, whatever stands around it; what is none stays as it is."""

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_lab.logging.entries import traceback_text
from ai_lab.logging.redaction import MAX_DEPTH, MAX_ITEMS, MAX_TEXT, REDACTED, redact, redact_text

NAMES = """api_key apiKey API-KEY APIKey x-api-key X-Goog-Api-Key authorization Proxy-Authorization Cookie Set-Cookie
    password userPassword passwd db_passwd passphrase secret client_secret clientSecret SECRET_KEY aws_secret_access_key
    access_token accessToken refresh-token HF_TOKEN token private_key ENCRYPTION_KEY credentials masterKey""".split()  # noqa: SIM905 - thirty quotes less to read

#: Where %s is a secret; each with any of the names or none.
NAMED = (
    "{name}=%s",
    "{name}: %s",
    "{name}:%s",
    "{name} = '%s' in the settings",
    '{{"{name}": "%s", "model": "x"}}',
    "{{'{name}': '%s'}}",
    r"{{\"{name}\": \"%s\"}}",
    r"{{\\\"{name}\\\": \\\"%s\\\"}}",
    "[(b'host', b'x'), (b'{name}', b'%s')]",
    '{{"{name}": ["%s"]}}',
    "Settings({name}='%s', port=1)",
    "GET http://x/y?a=1&{name}=%s&b=2 failed",
    "{name}%%3D%s",
    "{name} => %s",
)
SHAPED = (
    "Bearer %s",
    "proxy says Basic %s=",
    "authorization: Custom scheme of %s and more",
    "Cookie: a=b; session=%s; c=d",
    "Incorrect API key provided: sk-%s.",
    "sk-proj-%s",
    "AIza%s",
    "AQ.%s",
    "xai-%s",
    "v1.k7.gAAAA%s==",
    "eyJhbGciOiJI.eyJ%s.abc",
    "https://x/v1?key=%s",
    "https://x/v1?a=b&key=%s#c",
    "api_keys: ['sk-0123456789', '%s']",
    "token=sk-0123456789/%s",
    "password=null-%s",
    "password=***%s",
    "postgresql+asyncpg://lab:%s@db:5432/lab",
    "postgresql://lab:a/%s@db",
    "redis://:%s@cache",
    "https://%s@sentry.example/7",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE%s\nabc",
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

canaries = st.text(LETTERS, min_size=8, max_size=60).map("CANARY".__add__)
ordinary = st.lists(
    st.sampled_from(
        (
            "The model service did not answer in time.",
            "token: is missing",
            "api_key: Field required",
            "max_tokens=512 prompt_tokens: 9, 40 tokens/s",
            "http://127.0.0.1:8001/users/@me",
            "http://[::1]:8001/a@b 200",
            "GET /conversations/{session_id}?limit=20&after=x",
            "send a Bearer token; basic authentication is off",
            "Basic understanding of Visual Basic programs, basic usage, the bearer of it",
            "AI_LAB_SERVERS must be JSON: {'name': 'http://host/v1'}",
            "hf_hub_download, risk-assessment-of-everything, whisky-tasting-notes",
            "embedded/SmolLM2-135M-Instruct.Q4_1.gguf (105,454,432 bytes)",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "UPDATE messages SET text = ? WHERE key > 3",
            "api_key=None",
            "Schlüssel, clé, κλειδί 🔑",
        )
    )
    | st.uuids().map(str)
    | st.text(LETTERS, max_size=12)
    | st.integers().map(str),
    max_size=6,
).map(" ".join)


@settings(max_examples=800, deadline=None)
@given(
    canary=canaries,
    template=st.sampled_from([t.format(name=n) for t in NAMED for n in NAMES] + list(SHAPED)),
    before=ordinary,
    after=ordinary,
)
def test_no_secret_comes_through_in_a_text(canary: str, template: str, before: str, after: str) -> None:
    text = f"{before} {template.replace('%s', canary).replace('%%', '%')} {after}"
    redacted = redact_text(text)
    assert canary not in redacted
    assert REDACTED in redacted
    assert redact_text(redacted) == redacted


@given(text=ordinary)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


@given(canary=canaries, names=st.lists(st.sampled_from([*NAMES, "key", "auth", "dsn"]), min_size=1), data=st.data())
def test_no_secret_comes_through_in_a_structure(canary: str, names: list[str], data: st.DataObject) -> None:
    value: object = canary
    for name in names:
        value = data.draw(
            st.sampled_from(
                (
                    {name: value, "status": 200},
                    {"outer": {"Inner": {name.upper(): {"of": value}}}},
                    {"headers": [("host", "x"), (name, value)], "path": "/chat"},
                    {"headers": [(name.encode(), b"%s" % str(value).encode())]},
                    ({name: [value]}, 1.5),
                    {f"{name}=x": {name: value}},
                )
            )
        )
    assert canary not in json.dumps(redact(value))


def test_names_that_only_look_alike_keep_their_values() -> None:
    fields = {"max_tokens": 5, "author": "x", "keyboard": "de", "prompt_tokens": 9, "session_id": "s", "token": None}
    fields |= {"monkey": "x", "cooking": "y", "path": "/secrets", "is_secret": False}
    assert redact(fields) == fields


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.datetimes()
        | st.uuids()
        | st.builds(ValueError, st.text()),
        lambda inner: (
            st.lists(inner)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text() | st.integers() | st.binary(), inner)
            | st.frozensets(st.integers())
        ),
    )
)
def test_whatever_is_logged_becomes_json(value: object) -> None:
    once = redact({"field": value})
    assert json.loads(json.dumps(once, allow_nan=False)) == once


def test_numbers_that_json_cannot_hold_become_texts() -> None:
    assert redact([2**70_000, float("nan"), float("-inf"), 2**64]) == ["[number of 70001 bits]", "nan", "-inf", 2**64]


def test_what_is_too_deep_too_many_or_too_long_is_cut() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert json.dumps(redact(deep)).count("[[") < MAX_DEPTH + 1
    many = redact(list(range(MAX_ITEMS + 5)))
    assert (len(many), many[-1]) == (MAX_ITEMS + 1, "[5 more]")
    assert len(redact(dict.fromkeys(range(10_000)))) == MAX_ITEMS + 1
    assert redact("x" * (MAX_TEXT + 7)).endswith("x… [7 more characters]")


@given(canary=canaries, place=st.integers(MAX_TEXT - 100, MAX_TEXT + 2_100), filler=st.sampled_from("x \n"))
def test_a_secret_across_the_cut_does_not_come_through(canary: str, place: int, filler: str) -> None:
    text = (filler * place + f" sk-{canary} ").ljust(20_000, "y")
    assert "CANARY" not in redact_text(text)
    assert "CANARY" not in redact_text(text.replace("sk-", ""), known=[canary])


def test_a_known_secret_is_found_without_name_or_shape() -> None:
    known = ("correct horse battery", "short")
    assert redact("he said: correct horse battery!", known) == f"he said: {REDACTED}!"
    assert redact({"a": ["correct horse battery", "short"]}, known) == {"a": [REDACTED, "short"]}


def test_a_traceback_holds_neither_secrets_nor_local_variables() -> None:
    def failing(depth: int) -> None:
        local = f"CANARY{uuid.uuid4().hex}"
        if depth:
            failing(depth - 1)
        error = ValueError(f"refused: sk-{local}")
        error.add_note(f"api_key={local}")
        raise error

    try:
        failing(500)
    except ValueError as error:
        text = traceback_text(error)
    assert "CANARY" not in text
    assert text.startswith("Traceback")
    assert f"ValueError: refused: {REDACTED}" in text
    assert len(text) < MAX_TEXT


def test_the_end_of_a_long_traceback_is_kept_for_it_says_what_happened() -> None:
    error: Exception = ValueError("x" * 100_000)
    for number in range(50):
        error.__cause__, error = None, KeyError(number, "y" * 1_000) if number % 2 else error
        following = RuntimeError(f"number {number}")
        following.__cause__ = error
        error = following
    text = traceback_text(error)
    assert len(text) < MAX_TEXT
    assert text.endswith("RuntimeError: number 49")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "://",
            "://a:",
            "://a:a/",
            "a:",
            "@",
            "token",
            "token=",
            "token: ",
            "'token'",
            "'token',",
            "Bearer ",
            "basic ",
        ),
        *(
            "-----BEGIN PRIVATE KEY",
            "-----END ",
            "eyJaaaaaaaa.",
            "sk-",
            "?key=",
            "\\",
            '"',
            '\\"',
            'api_key="\\',
            "api_",
        ),
        *("cookie:", "password=[", "AQ.", "=", " ", "\t", "\n", "a ", "secret => ", "%3d", "__", "A", "gAAAA", "é"),
    ],
)
def test_no_text_keeps_the_redaction_busy(piece: str) -> None:
    """Patterns that backtrack would not end here within the limit."""
    for text in (piece * 20_000, "://a:" + piece * 20_000, 'token="' + piece * 20_000, "Bearer " + piece * 20_000):
        assert len(redact_text(text)) <= MAX_TEXT + 100
