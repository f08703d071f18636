"""Start the AI Lab server."""

from __future__ import annotations

import sys

from backend.server import main

if __name__ == "__main__":
    sys.exit(main())
