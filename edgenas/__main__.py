"""``edgenas`` and ``python -m edgenas``: the command line."""

import signal
import sys
from types import FrameType
from typing import NoReturn

_RESUMING = {"demo", "train", "import", "evaluate", "profile", "choose", "finetune", "export"}


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C. After a plain KeyboardInterrupt in exec or eval, Python dies by the signal instead of exiting."""


def main() -> None:
    """Run the command line and exit. Ctrl-C ends it with one line, also while it is loaded."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in the background of a script
        signal.signal(signal.SIGINT, _raise_interrupt)
    try:
        from edgenas.cli import main as run

        run()
    except KeyboardInterrupt:
        resumes = not _RESUMING.isdisjoint(sys.argv[1:2])
        next_time = "resumes where it stopped" if resumes else "begins anew"
        print(f"edgenas: interrupted; the same command {next_time}", file=sys.stderr)
        sys.exit(130)


def _raise_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise _Interrupt


if __name__ == "__main__":
    main()
