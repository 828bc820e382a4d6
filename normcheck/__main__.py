"""``python -m normcheck``."""

from __future__ import annotations

from normcheck.cli.main import main

if __name__ == "__main__":
    main()
