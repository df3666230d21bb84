"""The exceptions of edgenas, as a tree.

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
"""

from __future__ import annotations

from collections.abc import Iterable

_MAX_MESSAGE_LENGTH = 200


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

    exit_code = 1


class UsageError(EdgeNASError):
    """A flag, value, config, profile or name that the caller gave is wrong."""

    exit_code = 2


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
    """Training diverged."""


class VerificationError(EdgeNASError):
    """An exported file disagrees with the network it came from."""


class NoChoiceError(EdgeNASError):
    """No candidate met the budget in measurements on the device."""


class MissingExtraError(EdgeNASError):
    """An optional library is not installed; the message names the pip command."""


class InterruptedByUserError(EdgeNASError):
    """Ctrl-C ended a command that showed a part of its results."""

    exit_code = 130


def one_line(error: Exception) -> str:
    """Return the message of any exception without line breaks, shortened."""
    return " ".join(str(error).split())[:_MAX_MESSAGE_LENGTH]
