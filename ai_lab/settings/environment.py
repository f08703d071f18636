"""The environment of this process, and of those that it starts."""

from __future__ import annotations

import os
import re

#: Names of the environment that may hold a secret.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|OTLP_.*HEADERS|DATABASE_URL|^AI_LAB_|^PG", re.IGNORECASE)


def forget_environment_secrets() -> None:
    """Take the lab's own secrets out of the environment, for a program that has read its settings for good.

    ``/proc/<pid>/environ`` shows them on: the system keeps what a process was started with.
    """
    for name in ("ENCRYPTION_KEY", "ENCRYPTION_KEY_PREVIOUS", "AI_LAB_TOKEN"):
        os.environ.pop(name, None)


def environment_without_secrets() -> dict[str, str]:
    """Return the environment for a process that runs foreign files or talks to foreign servers: it needs no secret."""
    return {name: value for name, value in os.environ.items() if not _SECRET_NAME.search(name)}
