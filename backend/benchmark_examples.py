"""Plans that ``/docs`` shows, one for each way to measure."""

from __future__ import annotations

from fastapi.openapi.models import Example

_SMOL = "embedded/SmolLM2-135M-Instruct.Q4_1"

PLANS: dict[str, Example] = {
    "run": {
        "summary": "One model, ten requests one after the other",
        "value": {"load": {"mode": "closed", "requests": 10}, "output_tokens": 64},
    },
    "sweep": {
        "summary": "The same at 1, 4 and 16 requests at a time",
        "value": {"load": {"mode": "closed", "requests": 64, "concurrency": [1, 4, 16]}},
    },
    "compare": {
        "summary": "Two settings, or models, or servers against each other, in turn",
        "value": {
            "arms": [
                {"name": "1 thread", "model": _SMOL, "engine": {"threads": 1}},
                {"name": "2 threads", "model": _SMOL, "engine": {"threads": 2}},
            ],
            "load": {"mode": "closed", "requests": 40},
            "prompts": {"tokens": 64},
        },
    },
    "open loop": {
        "summary": "Requests at random times, half a one per second in the mean, to any server by its address",
        "value": {
            "arms": [{"url": "http://127.0.0.1:8080", "protocol": "openai", "model": "my-model"}],
            "load": {"mode": "open", "rates": [0.5], "arrivals": "poisson", "requests": 100},
            "slo": {"ttft_ms": 500, "tpot_ms": 50},
        },
    },
    "goodput": {
        "summary": "The highest rate at which 95 of 100 requests begin to answer within half a second",
        "value": {"load": {"mode": "goodput", "slo": {"ttft_ms": 500, "share": 0.95}, "start_rate": 0.5}},
    },
}
