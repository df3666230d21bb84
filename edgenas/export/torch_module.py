"""Model files of any torch module: ONNX by torch.onnx, TFLite by litert-torch; slower than edgenas's own writers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError, UsageError, VerificationError, one_line
from edgenas.export.parity import compare_logits, run_onnx
from edgenas.export.tflite.interpreter import run_tflite

if TYPE_CHECKING:
    import torch

_OPSET = 17
_TOLERANCE = 1e-4
Floats = npt.NDArray[np.float32]


def onnx_from_module(module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    """Export a module as an ONNX file with batch norm folded.

    torch.onnx's TorchScript exporter writes the file: the newer one writes
    means over height and width in a form that stays float in int8.

    Args:
        module: takes one tensor and returns one. It is exported in eval mode, and its modes are restored.
        sample: float32 (N, ...), an input.

    Returns:
        The file, with the input ``input`` of the sample's shape and the output ``logits``.

    Raises:
        UsageError: when the module cannot be run or exported.
        VerificationError: when a weight is not finite, or when onnxruntime and PyTorch differ on the sample by more
            than 1e-4 of max(1, the largest logit).
    """
    with _eval_mode(module):
        expected = _run_module(module, sample)
        model: bytes = _call("torch.onnx", module, lambda: _export_onnx(module, sample))
    _check_outputs(expected, run_onnx(model, sample.numpy()))
    return model


def tflite_from_module(module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    """Export a module as a TFLite file by litert-torch, for operators that ``build_tflite`` does not know.

    Args:
        module: takes one tensor and returns one. It is exported in eval mode, and its modes are restored.
        sample: float32 (N, C, ...), an input.

    Returns:
        The file, whose input has the channels last and whose output has PyTorch's layout.

    Raises:
        MissingExtraError: when litert-torch is not installed.
        UsageError: when the module cannot be run or exported.
        VerificationError: when a weight is not finite, or when LiteRT and PyTorch differ on the sample by more than
            1e-4 of max(1, the largest logit).
    """
    litert_torch = _import_litert_torch()
    with _eval_mode(module):
        expected = _run_module(module, sample)
        model: bytes = _call("litert-torch", module, lambda: _export_tflite(litert_torch, module, sample))
    _check_outputs(expected, run_tflite(model, sample.numpy()))
    return model


def _import_litert_torch() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they concern the authors of its dependencies
            import litert_torch
    except ImportError as error:
        raise MissingExtraError(
            f"this route needs litert-torch, which cannot be imported ({one_line(error)}); "
            "pip install 'edgenas[litert-torch]', in an environment of its own"
        ) from None
    return litert_torch


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Set eval mode and restore the mode of each submodule afterwards; they may differ."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, mode in modes:
            submodule.training = mode


def _run_module(module: torch.nn.Module, sample: torch.Tensor) -> Floats:
    """Return PyTorch's output for the sample."""
    import torch

    if sample.dtype != torch.float32 or sample.ndim < 2:
        raise UsageError(f"the sample must be float32 (N, ...), but is {sample.dtype} {tuple(sample.shape)}")
    for name, weight in module.named_parameters():
        if not weight.isfinite().all():
            raise VerificationError(f"weight {name!r} of shape {tuple(weight.shape)} holds NaN or infinity")
    with torch.no_grad():
        output = _call("PyTorch", module, lambda: module(sample))
    if not isinstance(output, torch.Tensor):
        raise UsageError(f"{type(module).__name__} must give one tensor, but gives {type(output).__name__}; wrap it")
    values: Floats = output.numpy()
    return values


def _call(tool: str, module: torch.nn.Module, function: Callable[[], Any]) -> Any:
    """Call a function; any exception of a module or an exporter becomes a UsageError."""
    try:
        return function()
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise UsageError(f"{tool} cannot run or export {type(module).__name__} with this sample: {reason}") from error


def _export_onnx(module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    import torch

    file: Any = io.BytesIO()  # Any: the newer exporter's type excludes it
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it recommends the newer exporter
        torch.onnx.export(module, (sample,), file, dynamo=False, opset_version=_OPSET, **names)
    data: bytes = file.getvalue()
    return data


def _export_tflite(litert_torch: Any, module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    if sample.ndim > 2:
        module = litert_torch.to_channel_last_io(module, args=[0]).eval()
        sample = sample.movedim(1, -1).contiguous()
    show_progress = litert_torch.config.show_progress
    litert_torch.config.show_progress = False  # it prints to standard output
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: bytes = litert_torch.convert(module, (sample,)).model_content()
    finally:
        litert_torch.config.show_progress = show_progress
    return model


def _check_outputs(expected: Floats, actual: Floats) -> None:
    if expected.shape != actual.shape:
        raise VerificationError(f"PyTorch gives a tensor of shape {expected.shape}, the file one of {actual.shape}")
    rows = len(expected)
    compare_logits(expected.reshape(rows, -1), actual.reshape(rows, -1), _TOLERANCE)
