"""Import conversations and agent states of earlier tools. Works from any folder; never changes a source."""

from __future__ import annotations

import sys

from ai_lab.importer.command import main

if __name__ == "__main__":
    sys.exit(main())
