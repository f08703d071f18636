"""Plans in few words, for notebooks and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ai_lab.benchmarks.plan import MOST_REQUESTS, Arm, Plan
from ai_lab.errors import InvalidRequest

#: What a part of a plan is called here.
_NAMES = {
    "load.requests": "iterations",
    "load.concurrency": "concurrency",
    "load.rates": "rate",
    "load.start_rate": "rate",
    "load.arrivals": "arrivals",
    "load.slo": "slo",
    "prompts.texts": "prompt",
    "prompts.tokens": "prompt_tokens",
}
_WORDS = {
    "Value error, ": "",
    "Input should be": "should be",
    "Extra inputs are not permitted": "there is nothing of that name",
}


def plan_for(
    *models: str | Arm | Mapping[str, Any],
    iterations: int | None = None,
    concurrency: int | Sequence[int] | None = None,
    rate: float | Sequence[float] | None = None,
    arrivals: str | None = None,
    search: bool = False,
    slo: Mapping[str, Any] | None = None,
    prompt: str | Sequence[str] | None = None,
    prompt_tokens: int | None = None,
    url: str | None = None,
    api_key: str | None = None,
    options: Mapping[str, Any] | None = None,
    engine: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Plan:
    """Return a plan.

    Args:
        models: what is measured: ``provider/model``, or arms in full. None: the lab's default model. Two or more are
            compared with the first.
        iterations: measured requests per arm and level. Default: 10, for comparisons 20; with several at a time 5 for
            each of them (comparisons 50), so that there is a time between beginning and end; open loops 100, searches
            50 per rate.
        concurrency: requests at a time, or several such numbers for a sweep.
        rate: requests per second that are sent whether the server keeps up or not, or several such rates.
        arrivals: with ``rate``: poisson (the default) or constant; gamma is for plans, which say its burstiness.
        search: look for the highest rate that keeps ``slo``.
        slo: ``{"ttft_ms": 500, "tpot_ms": 50, "e2e_ms": …, "share": 0.95}``.
        prompt: your own text or texts, with a number in front unless ``prompts`` says otherwise.
        prompt_tokens: length of prompts that are made up, by the server's count; default 128.
        url: of a server that all models are run by, with ``api_key`` if it needs one.
        api_key: see ``url``.
        options: of all arms, sent as they are.
        engine: of all arms that are embedded models: threads, slots, context_tokens, gpu_layers.
        fields: of ``Plan`` itself, by name.

    Raises:
        InvalidRequest: it cannot be measured like that; the text says why.
    """
    shared = _given(url=url, api_key=api_key, options=options, engine=engine)
    values: dict[str, Any] = dict(fields)
    if models or shared:
        values["arms"] = [_arm(one, shared) for one in models or [{}]]
    if prompt is not None or prompt_tokens is not None:
        texts = [prompt] if isinstance(prompt, str) else prompt
        values["prompts"] = {**values.get("prompts", {}), **_given(texts=texts, tokens=prompt_tokens)}
    if arrivals is not None and (rate is None or search):
        raise InvalidRequest("arrivals go with rate; a search has Poisson arrivals.")
    if concurrency is not None and (rate is not None or search):
        raise InvalidRequest("concurrency is for closed loops, rate and search are for open ones; give one of them.")
    if "load" in values and (search or any(one is not None for one in (iterations, concurrency, rate))):
        raise InvalidRequest("load says all of iterations, concurrency, rate and search; leave those out.")
    if search:
        rates = _list(rate) or []
        if len(rates) > 1:
            raise InvalidRequest("A search begins at one rate; give one.")
        start = rates[0] if rates else None
        values["load"] = _given(mode="goodput", requests=iterations, slo=slo, start_rate=start)
    else:
        values |= _given(slo=slo)
        if rate is not None:
            values["load"] = _given(mode="open", requests=iterations, rates=_list(rate), arrivals=arrivals)
        elif iterations is not None or concurrency is not None or len(models) > 1:
            levels = _list(concurrency)
            if iterations is None:
                iterations = _enough(levels or [1], is_comparison=len(models) > 1)
            values.setdefault("load", _given(mode="closed", requests=iterations, concurrency=levels))
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(in_our_words(error)) from None


def in_our_words(error: ValidationError) -> str:
    """Return what is wrong with a plan, on one line."""
    return "; ".join(_sentence(item) for item in error.errors(include_input=False))


def _enough(levels: Sequence[float], *, is_comparison: bool) -> int:
    """Return how many requests say something at every level: see ``load.schedule`` for blocks and their waves."""
    most = max((level for level in levels if isinstance(level, int)), default=1)
    alone, by_stream = (20, 50) if is_comparison else (10, 5)
    return alone if most <= 1 else max(alone, min(by_stream * most, MOST_REQUESTS))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _list(value: float | Sequence[float] | None) -> list[float] | None:
    return [value] if isinstance(value, int | float) else None if value is None else list(value)


def _arm(one: str | Arm | Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(one, str):
        return {"model": one, **shared}
    own = {name: getattr(one, name) for name in one.model_fields_set} if isinstance(one, Arm) else dict(one)
    if own.get("url"):  # the key is for the other server
        shared = {name: value for name, value in shared.items() if name != "api_key"}
    options = {**shared.get("options", {}), **own.get("options", {})}
    return {**shared, **own, **({"options": options} if options else {})}


def _sentence(item: Any) -> str:
    parts = [part for part in item["loc"] if part not in {"closed", "open", "goodput"}]
    for length in (2, 1):
        if name := _NAMES.get(".".join(str(part) for part in parts[:length])):
            parts = [name, *(part for part in parts[length:] if not isinstance(part, int))]
    if parts[:1] == ["arms"] and len(parts) > 1:
        parts[:2] = [f"arm {parts[1] + 1}"]
    where = ".".join(str(part) for part in parts)
    text = item["msg"]
    for said, ours in _WORDS.items():
        text = text.replace(said, ours)
    return f"{where}: {text}" if where else text
