"""TensorBoard's files, by torch's writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgenas.errors import MissingExtraError


def check_tensorboard() -> None:
    """Raise MissingExtraError unless TensorBoard's files can be written."""
    try:
        import torch.utils.tensorboard  # noqa: F401 - needs the package tensorboard
    except ImportError:
        raise MissingExtraError(
            "TensorBoard's files need the package tensorboard: pip install 'edgenas[tensorboard]'"
        ) from None


class TensorBoardWriter:
    """A folder of TensorBoard's files, open within a context.

    Args:
        folder: The folder.
        purge_step: What earlier files say of later steps is hidden: training goes on from here.

    Raises:
        MissingExtraError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def __enter__(self) -> TensorBoardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add a point at a step to the curve of each value that is known."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
