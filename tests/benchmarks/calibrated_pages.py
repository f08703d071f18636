"""Everything that the calibrated server answers at once: versions, lists of models, what a model is."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from tests.benchmarks.calibrated_dialects import encode
from tests.benchmarks.calibrated_prompts import Prompt, prompt_of
from tests.benchmarks.calibrated_settings import Calibration

_TEMPLATE = "{{ .Prompt }}"
_DETAILS = {"format": "gguf", "family": "calibrated", "parameter_size": "1B", "quantization_level": "Q4_0"}


def page(
    calibration: Calibration,
    loaded: AbstractSet[str],
    path: str,
    body: dict[str, Any],
    count: Callable[[Prompt], int],
) -> tuple[int, bytes]:
    """Return status and body for a request that needs no model."""
    found: Any = None
    if path == "/v1/models":
        owner = {"ollama": "library", "llama-server": "llamacpp", "openai": "vllm"}[calibration.flavour]
        listed = [{"id": name, "object": "model", "owned_by": owner} for name in calibration.models]
        found = {"object": "list", "data": listed}
    elif calibration.flavour == "ollama":
        if path == "/api/show" and body.get("model") not in calibration.models:
            return not_found(str(body.get("model")))
        found = _ollama(calibration, loaded, path)
    elif calibration.flavour == "llama-server":
        found = _llama_server(calibration, path, body, count)
    if found is None:
        return 404, encode({"error": f"no {path} here"})
    return 200, encode(found)


def not_found(model: str, *, is_openai: bool = False) -> tuple[int, bytes]:
    """Return the refusal of a model that is not there."""
    text = f"model '{model}' not found"
    if is_openai:
        error = {"message": text, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
        return 404, encode({"error": error})
    return 404, encode({"error": text})


def _ollama(calibration: Calibration, loaded: AbstractSet[str], path: str) -> Any:
    about = {"size": calibration.size_bytes, "digest": calibration.digest, "details": _DETAILS}
    match path:
        case "/":
            return "Ollama is running"
        case "/api/version":
            return {"version": calibration.version}
        case "/api/tags":
            return {"models": [{"name": name, "model": name, **about} for name in calibration.models]}
        case "/api/ps":
            more = {"size_vram": calibration.size_vram_bytes, "context_length": calibration.context_tokens}
            return {"models": [{"name": name, "model": name, **about, **more} for name in sorted(loaded)]}
        case "/api/show":
            info = {"general.architecture": "calibrated", "calibrated.context_length": calibration.context_tokens}
            return {"details": _DETAILS, "model_info": info, "template": _TEMPLATE, "capabilities": ["completion"]}
    return None


def _llama_server(calibration: Calibration, path: str, body: dict[str, Any], count: Callable[[Prompt], int]) -> Any:
    match path:
        case "/health":
            return {"status": "ok"}
        case "/props":
            return {
                "default_generation_settings": {"n_ctx": calibration.context_tokens},
                "total_slots": calibration.slots or 1,
                "model_path": next(iter(calibration.models)),
                "model_ftype": "Q4_0",
                "build_info": calibration.version,
                "chat_template": _TEMPLATE,
            }
        case "/v1/chat/completions/input_tokens":
            return {"input_tokens": count(prompt_of(path, body))}
    return None
