"""``python -m edgenas``: the command line."""

from edgenas.cli import main

main()
