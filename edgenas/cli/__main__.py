"""``python -m edgenas.cli``."""

from edgenas.cli import main

main()
