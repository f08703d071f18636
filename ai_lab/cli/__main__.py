"""``python -m ai_lab.cli``."""

from __future__ import annotations

from ai_lab.cli import main

main()
