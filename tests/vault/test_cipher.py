"""One secret, its place and its token: nothing but the token of this very place decrypts."""

from __future__ import annotations

import os
import string
from dataclasses import replace

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from ai_lab.vault.cipher import Place, Undecipherable, data_key_of, decrypt, encrypt, fingerprint, hint_of
from ai_lab.vault.keyring import Keyring, WrongRootKey, root_key_id

_KEY = bytes(range(32))
_PLACE = Place("01a1ff96-86aa-7858-9915-535af578a83b", "openai", "https://api.openai.com:443", 1)
_SECRET = "sk-CANARY-0123456789abcdef"
_SIGNS = string.ascii_letters + string.digits + "-_=. !\n\x00é"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=500))
def test_what_is_encrypted_comes_back(secret: str) -> None:
    assert decrypt(encrypt(secret, _PLACE, "k1", _KEY), _PLACE, _KEY) == secret


@pytest.mark.parametrize(
    "place",
    [
        replace(_PLACE, id="01a1ff96-86aa-7858-9915-535af578a83c"),
        replace(_PLACE, service_name="together"),
        replace(_PLACE, base_origin="https://evil.example:443"),
        replace(_PLACE, base_origin="http://api.openai.com:80"),
        replace(_PLACE, version=2),
    ],
)
def test_a_token_decrypts_in_its_own_place_alone(place: Place) -> None:
    with pytest.raises(Undecipherable):
        decrypt(encrypt(_SECRET, _PLACE, "k1", _KEY), place, _KEY)


@given(st.integers(min_value=0), st.sampled_from(_SIGNS), st.sampled_from(["change", "insert", "cut", "append"]))
def test_a_token_that_was_changed_anywhere_does_not_decrypt(at: int, sign: str, how: str) -> None:
    token = encrypt(_SECRET, _PLACE, "k1", _KEY)
    at %= len(token)
    changed = {
        "change": token[:at] + sign + token[at + 1 :],
        "insert": token[:at] + sign + token[at:],
        "cut": token[:at],
        "append": token + sign,
    }[how]
    if changed == token:
        return
    if data_key_of(changed) not in (None, "k1"):
        return  # another data key is looked up, and is another one
    with pytest.raises(Undecipherable):
        decrypt(changed, _PLACE, _KEY)


@pytest.mark.parametrize(
    "planted",
    [_SECRET, "", "v1.k1.", f"v1.k1.{_SECRET}", Fernet(Fernet.generate_key()).encrypt(b"sk-CANARY").decode()],
)
def test_what_is_no_token_is_never_taken_for_the_secret(planted: str) -> None:
    with pytest.raises(Undecipherable):
        decrypt(planted, _PLACE, _KEY)


def test_keys_of_similar_length_have_tokens_of_one_length() -> None:
    lengths = {len(encrypt("s" * length, _PLACE, "k1", _KEY)) for length in range(1, 63)}
    assert len(lengths) == 1


def test_fingerprints_tell_equal_secrets_only_to_those_with_the_key() -> None:
    assert fingerprint(_SECRET, b"a" * 32) == fingerprint(_SECRET, b"a" * 32)
    assert fingerprint(_SECRET, b"a" * 32) != fingerprint(_SECRET, b"b" * 32)


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("sk-proj-" + "a" * 30 + "x9Qf", "sk-proj-…x9Qf"),
        ("sk-ant-api03-" + "a" * 30 + "x9Qf", "sk-ant-api…x9Qf"),
        ("hf_" + "a" * 30 + "x9Qf", "hf_…x9Qf"),
        ("AIza" + "b" * 31 + "x9Qf", "AIza…x9Qf"),
        ("0123456789abcdef0123456789abcdef", "…cdef"),
        ("correct-horse-battery-staple-CANARY", "…NARY"),
        ("short-CANARY", "…"),
    ],
)
def test_a_hint_says_the_kind_and_the_end(secret: str, hint: str) -> None:
    assert hint_of(secret) == hint


def test_a_keyring_opens_with_its_root_key_alone() -> None:
    keyring, root, other = Keyring.new(), os.urandom(32), os.urandom(32)
    record = keyring.wrapped(root)
    assert Keyring.unwrapped(record, root) == keyring
    with pytest.raises(WrongRootKey):
        Keyring.unwrapped(record, other)
    with pytest.raises(WrongRootKey):
        Keyring.unwrapped(record[:-8] + "AAAAAA==", root)
    assert root_key_id(root) != root_key_id(other)
    assert root.hex() not in repr(keyring)
    assert str(keyring.index_key) not in repr(keyring)
