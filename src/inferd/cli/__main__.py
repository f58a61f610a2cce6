"""`python -m inferd.cli`."""

from inferd.cli import main

main()
