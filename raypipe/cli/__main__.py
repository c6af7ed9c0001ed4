"""`python -m raypipe.cli`: what a submitted job runs."""

from __future__ import annotations

from raypipe.cli.app import main

if __name__ == "__main__":
    main()
