"""Importing torchvision."""

from __future__ import annotations

from typing import Any

from edgenas.errors import MissingExtraError

_KEPT: list[Any] = []


def import_torchvision(needed_by: str) -> Any:
    """Return torchvision, also where its compiled operators do not fit the build of torch, as one for the CPU alone.

    Its import asks for the schemas of two of them, which are declared here where they are missing. Data sets,
    transforms and classifiers use neither.

    Raises:
        MissingExtraError: It is not installed, or does not fit the version of torch.
    """
    try:
        import torch

        try:
            import torchvision
        except RuntimeError:
            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(library)  # what it declares ends with it
            import torchvision
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(
            f"{needed_by} needs torch and torchvision of one release ({error}): pip install 'edgenas[train]'"
        ) from None
    return torchvision
