"""Running, checking and comparing model files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgenas.errors import ModelError, UsageError, VerificationError
from edgenas.export import check_onnx, check_parity, compare_logits, run_onnx, top1_accuracy


def _doubling(batch: int | str, operator: str = "Add") -> bytes:
    """A model that adds its input (batch, 2) to itself."""
    shape = (batch, 2)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_images_are_run_in_the_models_batches(batch: int | str) -> None:
    """All images come back in order, for models of any batch."""
    np.testing.assert_array_equal(run_onnx(_doubling(batch), ROWS), 2 * ROWS)


def test_a_file_is_run_like_its_bytes(tmp_path: Path) -> None:
    """A path may be given instead of bytes."""
    path = tmp_path / "double.onnx"
    path.write_bytes(_doubling(1))
    np.testing.assert_array_equal(run_onnx(path, ROWS), 2 * ROWS)


@pytest.mark.parametrize(
    ("images", "rule"),
    [
        (ROWS.astype(np.float64), "float32"),
        (np.zeros((6, 3), np.float32), "(N, 2)"),
        (np.zeros((0, 2), np.float32), "N above 0"),
        (np.zeros((6, 2, 1), np.float32), "(N, 2)"),
        (np.zeros((5, 2), np.float32), "3 images at a time"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: np.ndarray, rule: str) -> None:
    """Wrong type, shape or number of images is refused with the rule."""
    with pytest.raises(UsageError) as caught:
        run_onnx(_doubling(3), images)
    assert rule in str(caught.value)


@pytest.mark.parametrize("model", [b"", b"no model", _doubling(1)[:40], _doubling(1, "Unheard")])
def test_a_model_that_the_runtime_refuses_is_one_line(model: bytes) -> None:
    """The runtime's reason arrives on one line."""
    with pytest.raises(ModelError) as caught:
        run_onnx(model, ROWS)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path without a file is named."""
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        run_onnx(tmp_path / "gone.onnx", ROWS)


def test_a_model_with_two_inputs_is_refused() -> None:
    """A model that wants more than images cannot be run on images."""
    model = onnx.load_model_from_string(_doubling(1))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1,)))
    with pytest.raises(ModelError, match="'x', 'z'"):
        run_onnx(bytes(model.SerializeToString()), ROWS)


def test_the_checker_accepts_a_right_model() -> None:
    """A right model passes in silence."""
    check_onnx(_doubling(1))


@pytest.mark.parametrize("model", [b"", b"no model", _doubling(1, "Unheard"), _doubling(1, "MatMul")])
def test_the_checker_refuses_a_wrong_model(model: bytes) -> None:
    """Damage, unknown operators and impossible shapes are refused on one line."""
    with pytest.raises(VerificationError) as caught:
        check_onnx(model)
    assert "\n" not in str(caught.value)


def test_agreement_counts_by_hand() -> None:
    """Differences 0, 0.5, 0.25, 0.25; one of two rows keeps its largest entry."""
    expected = np.array([[1.0, 2.0], [3.0, 3.25]])
    actual = np.array([[1.0, 2.5], [3.25, 3.0]])
    agreement = compare_logits(expected, actual, tolerance=1.0)
    assert (agreement.max_difference, agreement.mean_difference, agreement.top1_agreement) == (0.5, 0.25, 0.5)


@pytest.mark.parametrize(
    ("largest", "difference", "passes"), [(0.1, 0.009, True), (0.1, 0.011, False), (50, 0.4, True)]
)
def test_tolerance_is_relative_above_one(largest: float, difference: float, passes: bool) -> None:
    """One percent is 0.01 for small logits, and a hundredth of the largest for large ones."""
    expected = np.array([[largest, 0.0]])
    if passes:
        compare_logits(expected, expected - difference, tolerance=0.01)
    else:
        with pytest.raises(VerificationError, match=r"at most 0\.01"):
            compare_logits(expected, expected - difference, tolerance=0.01)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (np.zeros((1, 2)), np.zeros((1, 3))),
        (np.zeros(2), np.zeros(2)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.zeros((1, 2)), np.array([[0, np.nan]])),
        (np.array([[np.inf, 0]]), np.array([[np.inf, 0]])),
    ],
)
def test_logits_that_cannot_be_compared_are_refused(expected: np.ndarray, actual: np.ndarray) -> None:
    """Other shapes, no rows, NaN and infinity never agree."""
    with pytest.raises(VerificationError):
        compare_logits(expected, actual, tolerance=1.0)


def test_accuracy_by_hand() -> None:
    """Two of three rows have their largest entry at the label."""
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert top1_accuracy(logits, np.array([1, 0, 0])) == pytest.approx(2 / 3)


def test_accuracy_needs_a_label_a_row() -> None:
    """Rows and labels must be as many."""
    with pytest.raises(UsageError, match=r"\(2, 2\) and \(3,\)"):
        top1_accuracy(np.zeros((2, 2)), np.array([0, 1, 0]))


@pytest.mark.parametrize(
    ("precision", "change", "rule"),
    [
        ("fp32", 0.01, "at most 0.001 is allowed"),
        ("fp16", 0.15, None),
        ("int8", 0.6, None),
        ("int8", 6.0, "logits differ"),
    ],
)
def test_each_precision_has_its_own_limits(precision: str, change: float, rule: str | None) -> None:
    """A difference that float32 may not have is nothing to int8; limits are relative to the largest logit, 10."""
    expected = np.array([[10.0, -5.0, 1.0], [0.0, 10.0, 2.0]])
    actual = expected + np.array([[change, 0.0, 0.0], [0.0, 0.0, 0.0]])
    if rule is None:
        check_parity(expected, actual, precision)
        return
    with pytest.raises(VerificationError, match=rule):
        check_parity(expected, actual, precision)


@pytest.mark.parametrize(("precision", "changed"), [("dynamic", 3), ("int8", 11)])
def test_too_many_changed_classes_are_refused(precision: str, changed: int) -> None:
    """More than two of a hundred images with another class are too many, in int8 ten; noise has no class to keep."""
    expected = np.tile(np.array([[1.0, 0.95]]), (100, 1))
    actual = expected.copy()
    actual[: changed - 1] = [0.95, 1.0]
    assert check_parity(expected, actual, precision).top1_agreement == 1 - (changed - 1) / 100
    actual[:changed] = [0.95, 1.0]
    with pytest.raises(VerificationError, match=rf"{100 - changed}\.0% of 100 images keep their class"):
        check_parity(expected, actual, precision)
    assert check_parity(expected, actual, precision, real=False).top1_agreement == 1 - changed / 100


def test_logits_that_are_off_everywhere_are_refused() -> None:
    """No difference is large, but all together are: a third of the logits' size."""
    expected = np.array([[1.0, -1.0], [1.0, -1.0]])
    with pytest.raises(VerificationError, match=r"off by 33\.3% on average"):
        check_parity(expected, expected * (4 / 3), "int8")
