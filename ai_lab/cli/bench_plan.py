"""What the options of ``ai-lab bench`` mean as a plan."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ai_lab.benchmarks.asking import plan_for
from ai_lab.benchmarks.plan import EngineOptions, Plan
from ai_lab.errors import InvalidRequest

_ARM_FIELDS = {"name", "url", "protocol", "endpoint"}
_LIMITS = ("ttft", "tpot", "e2e", "share")
#: Where an option is not called like the field.
_OPTIONS = {
    "equivalence_margin": "margin",
    "prompts.mode": "prompt_mode",
    "prompts.shared_tokens": "shared_tokens",
}


def plan_of(given: dict[str, Any]) -> Plan:
    """Return the plan that command line values ask for; those not given are None.

    Raises:
        InvalidRequest: it cannot be measured like that; the text names the option.
    """
    prompts: dict[str, Any] = {}
    if given.get("prompts") is not None:
        prompts["texts"] = read_prompts(given["prompts"])
    if given.get("prompt_mode") is not None:
        prompts["mode"] = given["prompt_mode"]
    if given.get("shared_tokens") is not None:
        prompts |= {"shared_tokens": given["shared_tokens"], "mode": "shared_prefix"}
    fields: dict[str, Any] = {
        "iterations": given.get("iterations"),
        "concurrency": _numbers("--concurrency", given.get("concurrency"), int),
        "rate": _numbers("--rate", given.get("rate"), float),
        "arrivals": given.get("arrivals"),
        "search": given.get("search") or False,
        "slo": _limits(given.get("slo")),
        "prompt": given.get("prompt"),
        "prompts": prompts or None,
        "prompt_tokens": given.get("prompt_tokens"),
        "output_tokens": given.get("output_tokens"),
        "url": given.get("target"),
        "api_key": key_from("--api-key-from", given.get("api_key_from")),
        "warmup": given.get("warmup"),
        "cold_loads": given.get("cold_loads"),
        "blocks": given.get("blocks"),
        "seed": given.get("seed"),
        "title": given.get("title"),
        "equivalence_margin": share_of("--margin", given.get("margin")),
    }
    if fields["search"] and not fields["slo"]:
        raise InvalidRequest("--search needs what is to be kept: --slo ttft=500,tpot=50")
    asked = {name: value for name, value in fields.items() if value is not None}
    try:
        return plan_for(*(arm_of(text) for text in given.get("models") or ()), **asked)
    except InvalidRequest as error:
        names = "|".join(map(re.escape, [*_OPTIONS, *(name for name in fields if name != "prompts")]))
        named = re.compile(rf"(^|; )({names})(?=[.:])")
        raise InvalidRequest(named.sub(lambda found: found[1] + _option(found[2]), error.detail)) from None


def arm_of(text: str) -> dict[str, Any]:
    """Return ``MODEL,engine.threads=2,options.seed=1,name=x`` as an arm."""
    model, *settings = text.split(",")
    arm: dict[str, Any] = {"model": model} if model else {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        part, _, field = name.strip().partition(".")
        if equals and name == "api_key_from":
            arm["api_key"] = key_from(name, value)
        elif equals and name in _ARM_FIELDS:
            arm[name] = value
        elif equals and field and (part == "options" or (part == "engine" and field in EngineOptions.model_fields)):
            arm.setdefault(part, {})[field] = _value(value)
        else:
            engine = ", ".join(f"engine.{one}=…" for one in EngineOptions.model_fields)
            raise InvalidRequest(
                f"{setting!r} is no setting of a model. There are name=…, url=…, api_key_from=…, protocol=…, "
                f"endpoint=…, options.NAME=…, {engine}."
            )
    return arm


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: JSON lines with ``prompt`` (or ``text``), or a text per line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--prompts: {path} cannot be read as UTF-8 text ({error}).") from None
    texts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        texts.append(_prompt_of(line) if path.suffix in {".jsonl", ".ndjson", ".json"} else line)
        if not texts[-1]:
            raise InvalidRequest(f"--prompts: line {number} of {path} has no field prompt or text.")
    if not texts:
        raise InvalidRequest(f"--prompts: {path} has no prompt in it.")
    return texts


def key_from(option: str, name: str | None) -> str | None:
    """Return what the environment variable holds."""
    if name is None:
        return None
    if not (key := os.environ.get(name)):
        raise InvalidRequest(f"{option}: the environment has no variable {name}.")
    return key


def share_of(option: str, text: str | None) -> float | None:
    """Return ``5%`` or ``0.05`` as 0.05."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise InvalidRequest(f"{option}: {text!r} is no share between 0 and 100 %. Write 5% or 0.05.")
    return share


def _prompt_of(line: str) -> str:
    try:
        values = json.loads(line)
    except ValueError:
        return ""
    if isinstance(values, dict):
        values = values.get("prompt") or values.get("text")
    return values if isinstance(values, str) else ""


def _numbers(option: str, text: str | None, kind: type[int | float]) -> list[float] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(f"{option}: {text!r} is no list of numbers such as 1,2,4.") from None


def _limits(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    limits = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip().removesuffix("_ms")
        try:
            limits[name if name == "share" else f"{name}_ms"] = float(value)
        except ValueError:
            name = ""
        if name not in _LIMITS:
            raise InvalidRequest(
                f"--slo: {part!r} is no limit. There are {', '.join(_LIMITS)}, such as ttft=500 (milliseconds)."
            )
    return limits


def _option(field: str) -> str:
    return f"--{_OPTIONS.get(field, field).replace('_', '-')}"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
