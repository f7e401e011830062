"""The command `antiphon`, also as `python -m antiphon`. Small, so that Ctrl-C is handled from the very start."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly with status 130, even while modules are being imported."""
    try:
        from antiphon import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
