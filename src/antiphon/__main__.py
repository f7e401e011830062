"""`python -m antiphon` is the same command as `antiphon`."""

from antiphon.cli import main

main()
