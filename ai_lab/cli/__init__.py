"""Owns the ``ai-lab`` command: what a person at a terminal sees of a running server. Measures and decides nothing."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command and end the program with its exit code."""
    from ai_lab.cli.command import app  # noqa: PLC0415 - the command line's library, only where it is used
    from ai_lab.errors import StartupError  # noqa: PLC0415 - as above

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What this terminal has no sign for becomes a question mark: a model's name must not end the program.
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="ai-lab")
    except StartupError as error:
        print(f"error: {error.detail}", file=sys.stderr)  # noqa: T201 - a command speaks to its terminal
        sys.exit(2)


__all__ = ["main"]
