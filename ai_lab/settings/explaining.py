"""What is wrong with a setting, in words for whoever wrote it: which, where in it, and what is right.

No value is ever repeated, it may be a secret. Names within a value are, unless they look like a key in the wrong place.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

#: What pydantic finds -> how we say it. Figures come from what it tells about the limit, never from the value.
_SAID = {
    "missing": "is missing",
    "dict_type": "must be an object in braces",
    "model_type": "must be an object in braces",
    "tuple_type": "must be a list in brackets",
    "too_short": "must not be empty",
    "string_type": "must be a text in double quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be more than {gt:.12g}",
    "greater_than_equal": "must be at least {ge:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "literal_error": "must be {expected}",
    "value_error": "is wrong: {error}",
}
#: What the reader of JSON finds, by the beginning of its text.
_NO_JSON = {
    "Expecting property name": "a name in double quotes is missing",
    "Expecting value": "a value is missing, or a text without double quotes stands there",
    "Expecting ':'": "a colon is missing",
    "Expecting ','": "a comma or a closing bracket is missing",
    "Unterminated string": "a text begins that has no end",
    "Extra data": "there is more behind the end",
    "Illegal trailing comma": "a comma has nothing behind it",
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
#: Letters and digits mixed without a break, as in no name that people give.
_LIKE_A_KEY = re.compile(r"(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16}")
_LONGEST_NAME = 80


def explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """Say what is wrong with each bad setting; ``fields`` are all settings by their names."""
    faults = error.errors(include_input=False, include_url=False)
    places = [fault["loc"] for fault in faults]
    told: dict[str, list[str]] = {}
    for fault, place in zip(faults, places, strict=True):
        is_follow_up = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if not is_follow_up:
            told.setdefault(str(place[0]), []).append(_sentence(fault, fields))
    return " ".join(f"{'; '.join(said)}.{_example(name, fields)}" for name, said in told.items())


def explain_json(error: ValueError, fields: Mapping[str, FieldInfo], names: Mapping[str, str]) -> str:
    """Say where a setting is no JSON; ``names`` of the settings by their fields, as which ``error`` has them."""
    name = next((name for field, name in names.items() if f'"{field}"' in str(error)), None)
    fault = error.__cause__
    if name is None or not isinstance(fault, json.JSONDecodeError):
        return f"{name or 'A setting'} must be JSON, see config_template.env."
    what = next((said for found, said in _NO_JSON.items() if fault.msg.startswith(found)), "it cannot be read")
    return (
        f"{name} must be JSON: at character {fault.pos + 1} {what}. In a shell, put all of it into single quotes."
        f"{_example(name, fields)}"
    )


def _sentence(fault: Any, fields: Mapping[str, FieldInfo]) -> str:
    name, *path = fault["loc"]
    where = f"{name}: {_shown(path)}" if path else str(name)
    if fault["type"] == "extra_forbidden":
        known = get_args(fields[name].annotation)[-1].model_fields
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return f"{where} is no known name, but {' or '.join(near or known)} is"
    said = _SAID.get(fault["type"], "has a value that cannot be used")
    return f"{where} {said.format(**fault.get('ctx') or {})}"


def _shown(path: list[int | str]) -> str:
    """Return where in a value something is: ``openai.concurrency``, ``fast.models[0]``, ``"a/b".input``."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in path)
    return shown.removeprefix(".")


def _name(part: str) -> str:
    if len(part) > _LONGEST_NAME or _LIKE_A_KEY.search(part) or not part.isprintable():
        return "(a name that is not shown)"
    return part if _PLAIN_NAME.fullmatch(part) else json.dumps(part, ensure_ascii=False)


def _example(name: str, fields: Mapping[str, FieldInfo]) -> str:
    examples = fields[name].examples if name in fields else None
    return f" For example: {name}={examples[0]}" if examples else ""
