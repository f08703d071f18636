"""The engine process: loads one model and serves it on the loopback interface until its standard input ends.

``engine.py`` starts this file by its path. It imports nothing but the standard library and ``xllamacpp``, takes its
configuration as one line of JSON on standard input and reports ``{"ready": url}`` or ``{"error": text, "kind": …}`` as
one line of JSON on standard output. llama.cpp's own log goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
#: Where memory runs out, Linux ends the engine rather than the server: 0 is an ordinary process, 1000 the first to go.
_OOM_SCORE = "600"
#: Prompt tokens between two looks at whether the client is still there; a GPU is far quicker at larger pieces.
_BATCH_TOKENS, _BATCH_TOKENS_GPU = 128, 512
_LOG_WARNINGS = 2
_MADV_DONTNEED = 4
_PIECE_BYTES = 1_048_576
_LARGE_BYTES = 64 * _PIECE_BYTES


def main() -> None:
    """Load the model, report, and serve until standard input ends."""
    # Ctrl-C and a service manager's SIGTERM reach the whole group; the server decides when its engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report_fd = os.dup(1)
    os.dup2(2, 1)  # whatever native code prints must not look like our report
    config: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    _tie_to_parent(config["parent_pid"])
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    try:
        server = _load(config)
        _give_back_zeros()
        report = {"ready": server.listening_address}
    except ImportError as error:
        report = {"error": str(error), "kind": "import"}
    except MemoryError:
        report = {"error": "", "kind": "memory"}
    except RuntimeError as error:  # the reason is in llama.cpp's log
        report = {"error": str(error), "kind": "load"}
    os.write(report_fd, json.dumps(report).encode() + b"\n")
    if "error" in report:
        _exit(1)
    threading.Event().wait()


def _tie_to_parent(parent_pid: int) -> None:
    """End with the parent, even where that is killed.

    The end of standard input says so everywhere, but only once the model is loaded: llama.cpp keeps the interpreter
    from running while it loads. On Linux the kernel ends us at any moment.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            _exit(0)
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def _exit_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    _exit(0)


def _exit(code: int) -> NoReturn:
    """Leave at once: the orderly way would wait for answers nobody reads any more."""
    os._exit(code)


def _load(config: dict[str, Any]) -> Any:
    """Return the running server.

    Raises:
        MemoryError: there is less memory than the model needs.
        RuntimeError: the model cannot be loaded.
    """
    sys.path.append(config["packages_folder"])
    import xllamacpp  # noqa: PLC0415 - a failure is to be reported

    gpu = config["gpu_layers"] != 0 and any(
        device["type"].name.endswith("GPU") for device in xllamacpp.get_device_info()
    )
    if not gpu and config["needed_bytes"] > config["free_bytes"]:
        raise MemoryError
    params = xllamacpp.CommonParams()
    params.model.path = config["model_path"]
    params.model_alias = {config["model_name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["api_key"]]
    params.n_ctx = config["context_tokens"] * config["slots"]
    params.n_parallel = config["slots"]
    params.kv_unified = False  # every slot has its own context, so that one conversation cannot push out another
    params.cpuparams.n_threads = config["threads"]
    params.n_batch = params.n_ubatch = _BATCH_TOKENS_GPU if gpu else _BATCH_TOKENS
    params.n_gpu_layers = config["gpu_layers"] if gpu else 0
    params.fit_params = gpu and config["gpu_layers"] < 0  # tries out what fits; on a CPU alone it only takes time
    params.cache_ram_mib = 0  # else prompts that left their slot are kept, up to 8 GB
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = 2  # of models with sliding windows, per slot; else up to 32, each as large as a window
    params.ctx_shift = False  # an answer ends at the end of the context instead of forgetting its beginning
    params.use_jinja = True  # the model's own chat template, and tools
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK  # apart from the text
    params.endpoint_slots = True
    params.ui = False
    params.offline = True
    params.verbosity = _LOG_WARNINGS  # no prompt gets into the log
    return xllamacpp.Server(params)


def _give_back_zeros() -> None:
    """Return memory that holds only zeros to the kernel, which gives it back as zeros when it is written.

    llama.cpp clears the whole cache at the start, and with that all of it takes memory, though a conversation seldom
    fills its context. Nothing computes yet: the server does not know our address.
    """
    if sys.platform != "linux":
        return
    libc, zeros = ctypes.CDLL(None), bytes(_PIECE_BYTES)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, access, _offset, _device, inode, *name = line.split()
        start, end = (int(address, 16) for address in span.split("-"))
        if access != "rw-p" or inode != "0" or name or end - start < _LARGE_BYTES:
            continue  # a file, a stack, or too small to matter
        for address in range(start, end - _PIECE_BYTES + 1, _PIECE_BYTES):
            if libc.memcmp(ctypes.c_void_p(address), zeros, ctypes.c_size_t(_PIECE_BYTES)) == 0:
                libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(_PIECE_BYTES), _MADV_DONTNEED)


if __name__ == "__main__":
    main()
