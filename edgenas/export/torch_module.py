"""Any torch module as a model file: ONNX by torch.onnx, TFLite by litert-torch. Slower than our own writers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError, UsageError, VerificationError
from edgenas.export.parity import compare_logits, run_onnx
from edgenas.export.tflite.interpreter import run_tflite

if TYPE_CHECKING:
    import torch

_OPSET = 17
_TOLERANCE = 1e-4
Floats = npt.NDArray[np.float32]


def onnx_from_module(module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    """A module as an ONNX file: input ``input`` of the sample's shape, output ``logits``, batch norm folded.

    ``sample`` is (N, ...) float32; the module takes it alone and gives one
    tensor. The module is exported in eval mode and is left as it was. It is
    torch.onnx's TorchScript exporter that writes the file, because the newer one
    writes means over height and width in a form that stays float in int8. Raises
    UsageError when the module cannot be run or exported, VerificationError for
    weights that are not finite and when onnxruntime disagrees with PyTorch on
    the sample by more than 1e-4 of the largest logit or of 1.
    """
    with _evaluating(module):
        expected = _expected(module, sample)
        model: bytes = _attempt("torch.onnx", module, lambda: _traced(module, sample))
    _verify(expected, run_onnx(model, sample.numpy()))
    return model


def tflite_from_module(module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    """A module as a TFLite file by way of litert-torch, for operators that ``build_tflite`` does not know.

    ``sample`` is (N, C, ...) float32, the file's input the same with the
    channels last; the output keeps PyTorch's layout. The module is exported in
    eval mode and is left as it was. Raises MissingExtraError where litert-torch
    is not installed, otherwise what ``onnx_from_module`` raises, the proof being
    a run in LiteRT.
    """
    litert_torch = _litert_torch()
    with _evaluating(module):
        expected = _expected(module, sample)
        model: bytes = _attempt("litert-torch", module, lambda: _converted(litert_torch, module, sample))
    _verify(expected, run_tflite(model, sample.numpy()))
    return model


def _litert_torch() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are for its authors
            import litert_torch
    except ImportError as error:
        raise MissingExtraError(
            f"this route needs litert-torch, which cannot be imported ({_one_line(error)}); "
            "pip install 'edgenas[litert-torch]', in an environment of its own"
        ) from None
    return litert_torch


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards each submodule is in the mode that it was in, frozen ones too."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _expected(module: torch.nn.Module, sample: torch.Tensor) -> Floats:
    import torch

    if sample.dtype != torch.float32 or sample.ndim < 2:
        raise UsageError(f"the sample must be float32 (N, ...), but is {sample.dtype} {tuple(sample.shape)}")
    for name, weight in module.named_parameters():
        if not weight.isfinite().all():
            raise VerificationError(f"weight {name!r} of shape {tuple(weight.shape)} holds NaN or infinity")
    with torch.no_grad():
        result = _attempt("PyTorch", module, lambda: module(sample))
    if not isinstance(result, torch.Tensor):
        raise UsageError(f"{type(module).__name__} must give one tensor, but gives {type(result).__name__}; wrap it")
    values: Floats = result.numpy()
    return values


def _attempt(by: str, module: torch.nn.Module, act: Callable[[], Any]) -> Any:
    """What ``act`` gives; whatever a module or an exporter may raise becomes a UsageError."""
    try:
        return act()
    except Exception as error:
        reason = _one_line(error) or type(error).__name__
        raise UsageError(f"{by} cannot run or export {type(module).__name__} with this sample: {reason}") from error


def _traced(module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    import torch

    file: Any = io.BytesIO()  # which only the newer exporter does not take
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it asks for the exporter that int8 cannot use
        torch.onnx.export(module, (sample,), file, dynamo=False, opset_version=_OPSET, **names)
    data: bytes = file.getvalue()
    return data


def _converted(litert_torch: Any, module: torch.nn.Module, sample: torch.Tensor) -> bytes:
    if sample.ndim > 2:
        module = litert_torch.to_channel_last_io(module, args=[0]).eval()
        sample = sample.movedim(1, -1).contiguous()
    shows = litert_torch.config.show_progress
    litert_torch.config.show_progress = False  # it prints to standard output
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: bytes = litert_torch.convert(module, (sample,)).model_content()
    finally:
        litert_torch.config.show_progress = shows
    return model


def _verify(expected: Floats, found: Floats) -> None:
    if expected.shape != found.shape:
        raise VerificationError(f"PyTorch gives a tensor of shape {expected.shape}, the file one of {found.shape}")
    rows = len(expected)
    compare_logits(expected.reshape(rows, -1), found.reshape(rows, -1), _TOLERANCE)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
