"""TensorBoard's files, by torch's writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgenas.errors import MissingExtraError


class TensorBoardWriter:
    """A folder of TensorBoard's files, open within a context.

    Raises:
        MissingExtraError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "TensorBoard's files need the package tensorboard: pip install 'edgenas[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> TensorBoardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add a point at a step to the curve of each value that is known."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
