"""The exceptions of edgenas, as a tree, and the exit codes of its commands.

::

    EdgeNASError                exit code 1
    ├── UsageError              exit code 2: a flag, value, config, profile or name is wrong
    │   ├── FormatError         a file is damaged, too old, too new or of another kind
    │   ├── SpaceError          an architecture or a space breaks a rule
    │   ├── RunError            a run folder of another space, or a step that is missing or taken
    │   ├── BudgetError         a budget that nothing can meet
    │   ├── ModelError          a model file that the runtime refuses or that kills its process
    │   ├── UnusableModelsError  model files that cannot be measured, found before anything is measured
    │   └── UncoveredOperatorError  an operator that the TFLite writer does not know
    ├── DeviceError             a device vanished, timed out or answered nonsense
    ├── MeasurementError        a measurement that cannot be taken, or is rejected
    ├── TrainingError           training diverged
    ├── VerificationError       an exported file disagrees with the network it came from
    ├── NoChoiceError           no candidate met the budget on the device
    ├── MissingExtraError       an optional library is not installed
    └── InterruptedByUserError  exit code 130: Ctrl-C, after a part of the results was shown

Every message names what, where, which rule and what to do. The command line
prints it on one line, without a traceback, and exits with ``exit_code``.

A message may quote a device, a file or a user. Whatever is printed passes
``printable``, messages of errors when they are turned into text.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

MAX_LINE_LENGTH = 4000  # of a message and of a printed line
MAX_QUOTE_LENGTH = 400  # of what somebody else said, within a message


class ExitCode(IntEnum):
    """The exit codes of all commands; what each means is in docs/guides/latency_gate.md."""

    OK = 0
    FAILED = 1
    WRONG_USE = 2
    REGRESSED = 3
    INCOMPARABLE = 4
    NOT_MEASURABLE = 5
    INTERRUPTED = 130


class EdgeNASError(Exception):
    """The base class of all errors that edgenas raises on purpose.

    Example:
        >>> from edgenas import Budget, EdgeNASError
        >>> try:
        ...     Budget(latency="15")
        ... except EdgeNASError as error:
        ...     print(error, error.exit_code, sep="\\n")
        latency budget '15' has no unit; the units are us, ms, s, min; for example 15ms
        2
    """

    exit_code = ExitCode.FAILED

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(EdgeNASError):
    """A flag, value, config, profile or name that the caller gave is wrong."""

    exit_code = ExitCode.WRONG_USE


class FormatError(UsageError):
    """A file is damaged, too old, too new or of another kind."""


class SpaceError(UsageError):
    """An architecture or a search space breaks a rule."""


class RunError(UsageError):
    """A run folder belongs to another space, or a step is missing or taken."""


class BudgetError(UsageError):
    """A budget that no architecture of the space can meet."""


class ModelError(UsageError):
    """A model file that the runtime refuses or that kills its process."""


class UnusableModelsError(UsageError):
    """Model files that cannot be measured, found before anything is measured.

    Attributes:
        problems: what is wrong, a line for each file, without repetitions.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        before = "nothing was measured: " if len(self.problems) > 1 else ""
        super().__init__(before + ". ".join(self.problems))


class UncoveredOperatorError(UsageError):
    """A model with operators that the TFLite writer does not know; the message lists them."""


class DeviceError(EdgeNASError):
    """A device vanished, timed out or answered nonsense."""


class MeasurementError(EdgeNASError):
    """A measurement that could not be taken, or that is rejected."""


class TrainingError(EdgeNASError):
    """Training diverged, lost a process, or could not write its checkpoint."""


class VerificationError(EdgeNASError):
    """An exported file disagrees with the network it came from."""


class NoChoiceError(EdgeNASError):
    """No candidate met the budget in measurements on the device."""


class MissingExtraError(EdgeNASError):
    """An optional library is not installed; the message names the pip command."""


class InterruptedByUserError(EdgeNASError):
    """Ctrl-C ended a command that showed a part of its results."""

    exit_code = ExitCode.INTERRUPTED


def printable(text: str, max_length: int = MAX_LINE_LENGTH) -> str:
    """Return text on one line that is safe to print and to log; of a long one the beginning and the end.

    Blanks take the place of line breaks and of all signs that are invisible, move a terminal's cursor, change its
    colours or reorder what stands there.
    """
    if len(text) > max_length:
        half = (max_length - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def one_line(value: object) -> str:
    """Return what somebody else said, an exception or a text, as a short quote: printable, no blank repeated."""
    return " ".join(printable(str(value), MAX_QUOTE_LENGTH).split())
