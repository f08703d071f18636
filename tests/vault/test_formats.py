"""Which texts are taken for keys, which are refused, and what is said about the rest."""

from __future__ import annotations

import re
import secrets
import string

import pytest

from ai_lab.errors import AddressRefused, ApiKeyRefused
from ai_lab.providers.known_services import canonical, known_services, origin_of
from ai_lab.vault.formats import Judgement, judge

LETTERS = string.ascii_letters + string.digits
SERVICES = known_services()


def letters(count: int, alphabet: str = LETTERS) -> str:
    marker = "CANARY" if set("CANARY") <= set(alphabet) and count >= 6 else ""
    return marker + "".join(secrets.choice(alphabet) for _ in range(count - len(marker)))


HEX = "0123456789abcdef"
#: A key of each known kind.
EXAMPLES = {
    ("openai", "project"): f"sk-proj-{letters(74)}T3BlbkFJ{letters(74)}",
    ("openai", "service account"): f"sk-svcacct-{letters(58)}T3BlbkFJ{letters(58)}",
    ("openai", "legacy"): f"sk-{letters(20)}T3BlbkFJ{letters(20)}",
    ("anthropic", "ordinary"): f"sk-ant-api03-{letters(93)}AA",
    ("google", "auth"): f"AQ.Ab{letters(50)}",
    ("azure", "today's"): f"{letters(52)}JQQJ99{letters(1)}B{letters(12)}AAABACOG{letters(4)}",
    ("azure", "earlier"): letters(32, HEX),
    ("cohere", "ordinary"): letters(40),
    ("huggingface", "ordinary"): f"hf_{letters(34)}",
    ("openrouter", "ordinary"): f"sk-or-v1-{letters(64, HEX)}",
    ("together", "ordinary"): f"tgp_v1_{letters(43)}",
    ("together", "earlier"): letters(64, HEX),
}
OPENAI = EXAMPLES["openai", "project"]
#: Kinds that only their service has.
OWNED = [kind for kind, key in EXAMPLES.items() if key.startswith(SERVICES[kind[0]].unique_prefixes)]


def judged(name: str, key: str, *, force: bool = False, has_own_address: bool = False) -> Judgement:
    judgement = judge(SERVICES.get(name), key, force=force, has_own_address=has_own_address)
    assert "CANARY" not in repr(judgement)
    return judgement


def refusal(name: str, key: str, *, force: bool = False, has_own_address: bool = False) -> str:
    with pytest.raises(ApiKeyRefused) as caught:
        judge(SERVICES.get(name), key, force=force, has_own_address=has_own_address)
    assert "CANARY" not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize("kind", EXAMPLES, ids=" ".join)
def test_known_kinds_pass_without_a_word(kind: tuple[str, str]) -> None:
    key = EXAMPLES[kind]
    assert judged(kind[0], key) == Judgement(key)


@pytest.mark.parametrize("kind", EXAMPLES, ids=" ".join)
def test_other_lengths_and_beginnings_are_warnings(kind: tuple[str, str]) -> None:
    name, key = kind[0], EXAMPLES[kind]
    for changed in (f"{key}a", key[:-1], f"zz{key}", letters(37), letters(1)):
        judgement = judged(name, changed)
        assert judgement.secret == changed
        assert len(judgement.warnings) == (0 if name == "google" and changed.startswith("AQ.") else 1)
        # A proxy has keys of its own; Azure always has an address of the user's, and keeps its forms.
        at_proxy = judged(name, changed, has_own_address=True).warnings
        assert at_proxy == (judgement.warnings if name == "azure" else [])


@pytest.mark.parametrize(
    ("name", "key", "text"),
    [
        ("google", f"AIza{letters(34)}-", "create an auth key"),
        ("huggingface", f"api_org_{letters(34)}", "access token"),
        ("ollama", letters(57), "asks for no key"),
    ],
)
def test_kinds_that_do_not_work_any_more_are_named(name: str, key: str, text: str) -> None:
    (warning,) = judged(name, key).warnings
    assert text in warning


@pytest.mark.parametrize("kind", OWNED, ids=" ".join)
@pytest.mark.parametrize("slot", SERVICES)
def test_key_of_another_service_is_refused_with_the_right_name(kind: tuple[str, str], slot: str) -> None:
    owner, key = SERVICES[kind[0]], EXAMPLES[kind]
    if slot == owner.name:
        return
    text = refusal(slot, key)
    assert owner.title in text
    assert repr(owner.name) in text
    assert "force" in text
    (warning,) = judged(slot, key, force=True).warnings
    assert owner.title in warning
    if SERVICES[slot].base_url:
        (warning,) = judged(slot, key, has_own_address=True).warnings
        assert "address" in warning
    (warning,) = judged("custom", key, has_own_address=True).warnings
    assert owner.title in warning


@pytest.mark.parametrize(
    ("name", "key"), [("openai", f"sk-admin-{letters(100)}"), ("anthropic", f"sk-ant-admin01-{letters(93)}AA")]
)
def test_keys_of_administrators_are_refused(name: str, key: str) -> None:
    assert "administrator" in refusal(name, key)
    assert "administrator" in refusal(name, key, has_own_address=True)
    assert "administrator" in refusal("openrouter", key)
    (warning,) = judged(name, key, force=True).warnings
    assert "administrator" in warning
    (warning,) = judged("custom", key).warnings
    assert "administrator" in warning


@pytest.mark.parametrize("name", [*SERVICES, "custom"])
@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ('""', "empty"),
        ("Bearer ", "empty"),
        ("a" * 4097, "4,096"),
        ("a" * 1_000_000, "4,096"),
        ("sk-CANARY\nsk-CANARY", "several lines"),
        ("OPENAI_API_KEY=sk-CANARY\r\nHF_TOKEN=hf_CANARY", "several lines"),
        ("sk-CANARY\0x", "control characters"),
        ("sk-CANARY\x1b[0m", "control characters"),
        ("sk-CANARY two", "spaces"),
        ("sk\u2013CANARYtypographic", "typographic"),
        ("CANARYschlüssel", "accents"),
        ("sk-CANARY\u200bx", "letters that no API key has"),
        ('{"type": "service_account", "private_key": "CANARY"}', "JSON"),
        ('["CANARY"]', "JSON"),
        ("https://user:CANARY@host.example/v1", "address"),
        ("http://host.example/?key=CANARY", "address"),
    ],
)
def test_what_can_never_work_is_refused_everywhere(name: str, key: str, text: str) -> None:
    for force in (False, True):
        assert re.search(text, refusal(name, key, force=force, has_own_address=True))


@pytest.mark.parametrize("name", [*SERVICES, "custom"])
@pytest.mark.parametrize(
    "key",
    [
        "your-api-key",
        "your_api_key_here",
        "sk-your-key-here",
        "YOUR_API_KEY",
        "yourapikey",
        "insert-your-key-here",
        "sk-...",
        "sk-proj-abc...wxyz",
        "sk-proj-abc********wxyz",
        "xxx",
        "XXXXXXXXXXXXXXXX",
        "sk-xxxxxxxxxxxxxxxx",
        "sk-ant-api-xxxx",
        "hf_xxxxxxxx",
        "changeme",
        "change-me",
        "replace_me",
        "<your key>".replace(" ", ""),
        "<KEY>",
        "${OPENAI_API_KEY}",
        "$OPENAI_API_KEY",
        "%OPENAI_API_KEY%",
        "{{openai_key}}".replace("{{", "$"),
        "OPENAI_API_KEY",
        "OPENAI_API_KEY=",
        "null",
        "placeholder",
    ],
)
def test_examples_are_refused_unless_forced(name: str, key: str) -> None:
    assert "examples" in refusal(name, key)
    assert judged(name, key, force=True).warnings


@pytest.mark.parametrize(
    ("pasted", "notes"),
    [
        (" {key}\n", 1),
        ("\ufeff{key}\u200b\u00a0", 1),
        ('"{key}"', 1),
        ("'{key}'", 1),
        ("`{key}`", 1),
        ("Bearer {key}", 1),
        ("bearer  {key}", 1),
        ("Authorization: Bearer {key}", 2),
        ("x-api-key: {key}", 1),
        ("OPENAI_API_KEY={key}", 1),
        ('OPENAI_API_KEY="{key}"', 2),
        ('OPENAI_API_KEY = "{key}"  # mine, of May', 2),
        ("export OPENAI_API_KEY='{key}'", 2),
        ("set OPENAI_API_KEY={key}", 1),
        ('$env:OPENAI_API_KEY = "{key}"', 2),
        ("OPENAI_API_KEY: {key}", 1),
        ('"OPENAI_API_KEY": "{key}",', 2),
        ('"api_key":"{key}"', 2),
        ("apiKey={key}", 1),
        ("HF_TOKEN=Bearer {key}", 2),
        ("{key} # mine", 1),
        ("{key}\t#mine", 1),
    ],
)
def test_what_was_pasted_along_is_taken_off_and_said(pasted: str, notes: int) -> None:
    for key in (OPENAI, f"{letters(60)}=="):
        judgement = judged("custom", pasted.format(key=key))
        assert judgement.secret == key
        assert len(judgement.notes) == notes


@pytest.mark.parametrize(
    "key",
    [
        "CANARY=abc",
        "CANARYkey==",
        "a#CANARY",
        "CANARY'x",
        "basic-CANARY",
        "key-CANARY",
        "sk_CANARY:1",
        "x-api-key:CANARY",
    ],
)
def test_nothing_else_is_taken_off(key: str) -> None:
    assert judged("custom", key) == Judgement(key)


@pytest.mark.timeout(20)  # one pattern that backtracks would take years
@pytest.mark.parametrize("size", [4096, 8192, 1_000_000])
@pytest.mark.parametrize(
    "piece",
    [
        *'aA0x.*-_= "#$<{é\0\u200b',
        *(
            "..",
            " #",
            "\t#",
            "KEY",
            "API_",
            "A_",
            "sk-",
            "sk-proj-",
            "T3BlbkFJ",
            "sk-ant-",
            "AQ.",
            "AIza",
            "your-",
            "key",
        ),
        *("Bearer ", "export "),
    ],
)
def test_long_adversarial_texts_take_no_time(piece: str, size: int) -> None:
    text = (piece * size)[:size]
    for name in ("openai", "google", "azure", "custom"):
        for key in (text, f"sk-proj-{text}"[:size], f"OPENAI_API_KEY={text}"[:size], f"{text[:-1]}!"):
            try:
                judge(SERVICES.get(name), key, force=size % 2 == 0)
            except ApiKeyRefused as refused:
                assert len(refused.detail) < 400  # noqa: PT017 - most are refused, a few are keys


def test_patterns_are_linear_and_say_where_they_come_from() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"20\d\d-\d\d", service.as_of)
        assert service.source
        assert service.key_hint
        for shape in service.shapes:
            assert re.fullmatch(r"20\d\d-\d\d", shape.as_of)
            assert shape.source
            assert not re.search(r"[+*}]\)*[+*{]|[*+]", shape.pattern.replace("\\.", "")), "only bounded repetition"


def test_every_row_is_whole() -> None:
    assert set(SERVICES) == {
        "openai", "anthropic", "google", "azure", "cohere", "huggingface", "openrouter", "together", "ollama"
    }  # fmt: skip
    aliases = [alias for service in SERVICES.values() for alias in (service.name, *service.aliases)]
    assert len(aliases) == len(set(aliases))
    names = [name for service in SERVICES.values() for name in service.environment_names]
    assert len(names) == len(set(names))
    for service in SERVICES.values():
        check = service.check
        assert "{" not in f"{check.url}{check.path}", "keys never stand in an address"
        assert check.url or check.path
        assert check.url is None or service.is_own(check.url)
        assert service.base_url is None or service.is_own(service.base_url)
        assert set(service.admin_prefixes) <= {
            p for p in service.admin_prefixes if p.startswith(service.unique_prefixes)
        }
    assert SERVICES["together"].is_own("https://api.together.xyz/v1")
    assert not SERVICES["openai"].is_own("https://api.openai.com.evil.example/v1")
    assert not SERVICES["openai"].is_own("http://api.openai.com/v1")


@pytest.mark.parametrize(
    ("given", "name"),
    [("Gemini", "google"), (" claude ", "anthropic"), ("hf", "huggingface"), ("azure_openai", "azure"),
     ("Together-AI", "together"), ("openai", "openai"), ("my-server", "my-server")],
)  # fmt: skip
def test_names_that_people_use(given: str, name: str) -> None:
    assert canonical(given) == name


def test_origin_is_spelled_in_one_way() -> None:
    assert origin_of("HTTPS://API.OpenAI.com/v1?x=1") == "https://api.openai.com:443"
    assert origin_of("http://[::1]:8080/") == "http://[::1]:8080"
    assert origin_of("http://10.0.0.5") == "http://10.0.0.5:80"
    for url in (
        "http://a@b/",
        "ftp://a",
        "a",
        "",
        "http://",
        "http://127.0.0.1\\@1.1.1.1",
        "http://a b/",
        "http://a:0/",
    ):
        with pytest.raises(AddressRefused):
            origin_of(url)
