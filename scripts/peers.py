"""Other benchmarking tools: each installed into an environment of its own, run once, and its report read."""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.calibrated_server import MODEL

#: A tool that takes longer than a run of it ever should is stopped.
_RUN_SECONDS, _INSTALL_SECONDS = 300, 1800
_LAST_LINES = 5

#: By name: ``ttft``, ``gap``, ``tpot`` (mean gap of a request), ``latency_per_token`` (of a request: sending to last
#: token, by all tokens), each with ``_p50`` and ``_p99`` in milliseconds; ``output_tps``; ``requests`` that succeeded.
Figures = dict[str, float]


@dataclass(frozen=True)
class Task:
    """What every tool is asked to do: ``streams`` at a time or, where that is None, Poisson arrivals at ``rate``."""

    title: str
    requests: int
    tokens: int
    streams: int | None = None
    rate: float | None = None  # per second
    server: Mapping[str, float] = field(default_factory=dict)  # how the server answers: names of Calibration


@dataclass(frozen=True)
class Peer:
    """A tool.

    Attributes:
        requirements: what is installed, one after the other.
        command: its program and arguments, given the address of the server, the task and the folder to write to.
        read: its figures, given that folder.
        environment: added to ours.
    """

    name: str
    requirements: Sequence[str]
    command: Callable[[str, Task, Path], list[str]]
    read: Callable[[Path], Figures]
    environment: Mapping[str, str] = field(default_factory=dict)

    def install(self, cache: Path) -> Path:
        """Return the folder of its programs; installs it there unless that has been done.

        Raises:
            PeerFailed: it cannot be installed here.
        """
        home = cache / "-".join([self.name, self.requirements[-1].partition("==")[2]])
        programs = home / ("Scripts" if os.name == "nt" else "bin")
        done = home / "installed"
        if not done.exists():
            venv.create(home, clear=True, with_pip=True)
            for requirement in self.requirements:
                command = [str(programs / "python"), "-m", "pip", "install", "--quiet", requirement]
                _run(command, dict(os.environ), cache, _INSTALL_SECONDS)
            done.touch()
        return programs

    def run(self, programs: Path, url: str, task: Task, folder: Path) -> Figures:
        """Let it do the task; returns what it reports.

        Raises:
            PeerFailed: it ended with an error.
        """
        (folder / "prompts.jsonl").write_text(_prompts(task.requests), encoding="utf-8")
        _write_tokenizer(folder / "tokenizer")
        # Its caches go to our folder; what may be set for the models of the one who runs this has nothing to say here.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        environment = {**kept, "HOME": str(folder), "COLUMNS": "200", **self.environment}
        program, *arguments = self.command(url, task, folder)
        _run([str(programs / program), *arguments], environment, folder, _RUN_SECONDS)
        return self.read(folder)


class PeerFailed(Exception):
    """A tool that did not work here; says how."""


def _run(command: list[str], environment: dict[str, str], folder: Path, timeout_seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailed(str(error)) from error
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        raise PeerFailed(f"exit status {done.returncode}: {' / '.join(lines[-_LAST_LINES:])}")


def _prompts(count: int) -> str:
    """Return prompts for both tools, a line each; none of them was ever sent before."""
    began = time.time_ns()
    return "".join(json.dumps({"text": f"{began} {at} Tell a long story about a lake"}) + "\n" for at in range(count))


def _write_tokenizer(folder: Path) -> None:
    """Write a tokenizer to which a token is a word, as to the server: without one, aiperf looks for it in the net."""
    folder.mkdir(exist_ok=True)
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    plain = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        **plain,
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
    }
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "model": words}), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 100_000}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _guidellm(url: str, task: Task, folder: Path) -> list[str]:
    profile = f"kind=poisson,rate={task.rate:g}" if task.rate else f"kind=concurrent,streams={task.streams}"
    backend = f"kind=openai_http,target={url},model={MODEL},max_tokens={task.tokens},validate_backend=false"
    return [
        *("guidellm", "run", "--backend", backend, "--profile", profile, "--disable-console-interactive"),
        *("--constraint", f"kind=max_requests,count={task.requests}"),
        *("--data", f"kind=json_file,path={folder / 'prompts.jsonl'}"),
        *("--output", f"kind=json,path={folder / 'report.json'}"),
    ]


def _read_guidellm(folder: Path) -> Figures:
    [benchmark] = _json(folder / "report.json")["benchmarks"]
    metrics = benchmark["metrics"]
    found: Figures = {"requests": len(benchmark["requests"]["successful"])}
    for name, theirs in (
        ("ttft", "time_to_first_token_ms"),
        ("tpot", "inter_token_latency_ms"),
        ("latency_per_token", "time_per_output_token_ms"),
    ):
        found |= {f"{name}_{share}": metrics[theirs]["successful"]["percentiles"][share] for share in ("p50", "p99")}
    return found | {"output_tps": metrics["output_tokens_per_second"]["successful"]["mean"]}


def _aiperf(url: str, task: Task, folder: Path) -> list[str]:
    rate = ["--request-rate", f"{task.rate:g}", "--arrival-pattern", "poisson"] if task.rate else []
    return [
        *("aiperf", "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat", "--streaming"),
        *("--tokenizer", str(folder / "tokenizer"), "--use-server-token-count"),
        *("--input-file", str(folder / "prompts.jsonl"), "--custom-dataset-type", "single_turn"),
        *("--dataset-sampling-strategy", "sequential", "--osl", str(task.tokens)),
        *("--request-count", str(task.requests), *(rate or ["--concurrency", str(task.streams)])),
        # As few processes as it can do with: its own number of them is for machines with more cores than a laptop's.
        *("--workers-max", "1", "--record-processors", "1", "--ui", "none"),
        *("--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", str(folder / "artifacts")),
    ]


def _read_aiperf(folder: Path) -> Figures:
    metrics = _json(folder / "artifacts" / "profile_export_aiperf.json")
    found: Figures = {"requests": metrics["request_count"]["avg"]}
    for name, theirs in (
        ("ttft", "time_to_first_token"),
        ("gap", "inter_chunk_latency"),
        ("tpot", "inter_token_latency"),
    ):
        found |= {f"{name}_{share}": metrics[theirs][share] for share in ("p50", "p99")}
    return found | {"output_tps": metrics["output_token_throughput"]["avg"]}


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


PEERS = (
    # torch first: where pip finds a build for the CPU alone, guidellm is then content with it.
    Peer("guidellm", ("torch==2.13.0", "guidellm==0.8.1"), _guidellm, _read_guidellm, {"HF_HUB_OFFLINE": "1"}),
    Peer("aiperf", ("aiperf==0.13.0",), _aiperf, _read_aiperf),
)
