"""Create or upgrade the database, check it, and print what was done. Works from any folder."""

from __future__ import annotations

import sys

from ai_lab.database.command import main

if __name__ == "__main__":
    sys.exit(main())
