"""A program that reads GPUs when it is told to: JSON lines in, JSON lines out. Its clock is set from there too."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time

from ai_lab.telemetry.machine.gpu import THREAD_NAME, GpuReader


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def main() -> None:
    records = Records()
    logging.basicConfig(level=logging.INFO, handlers=[records])
    seconds = 1000.0
    reader = GpuReader(timeout_seconds=float(sys.argv[1]), clock=lambda: seconds)
    for line in sys.stdin:
        command = json.loads(line)
        seconds += command.get("advance", 0.0)
        answer = {}
        if command["do"] == "close":
            reader.close()
        else:
            began = time.perf_counter()
            gpus, backend = reader.read(with_processes=command["with_processes"])
            answer = {
                "gpus": [gpu.model_dump() for gpu in gpus],
                "backend": backend.model_dump(),
                "duration_seconds": time.perf_counter() - began,
                "logged": records.lines,
                "has_bindings": "pynvml" in sys.modules,
                "threads": sum(thread.name == THREAD_NAME for thread in threading.enumerate()),
            }
            records.lines = []
        print(json.dumps(answer), flush=True)  # noqa: T201 - this is how it answers


if __name__ == "__main__":
    main()
