"""``python -m edgenas.cli``."""

from edgenas.__main__ import main

main()
