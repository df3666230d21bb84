"""The places of windows: TFLite's SAME and VALID against a count by hand of ONNX's rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.export.tflite.windows import read_window


def _starts_of_onnx(size: int, extent: int, stride: int, before: int, after: int, ceil: bool) -> list[int]:
    """Return the starts of ONNX's windows: within the padded map, or with ceil_mode one more that starts in the map."""
    starts, start = [], -before
    while start + extent <= size + after or (ceil and start + extent - stride < size + after and start < size):
        starts.append(start)
        start += stride
    return starts


def _starts_of_same(size: int, extent: int, stride: int) -> list[int]:
    """Return the starts of TFLite's SAME windows: one for each stride, the padding shared, the odd one behind."""
    count = -(-size // stride)
    padding = max((count - 1) * stride + extent - size, 0)
    return [number * stride - padding // 2 for number in range(count)]


@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ceil=st.booleans(),
)
def test_windows_start_where_onnx_starts_them(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], ceil: bool
) -> None:
    """SAME is said exactly when it puts the windows there; otherwise its padding puts VALID's there."""
    extent = (kernel - 1) * dilation + 1
    starts = _starts_of_onnx(size, extent, stride, *pads, ceil)
    if not starts or max(pads) >= extent:
        return  # ONNX refuses a window that nowhere fits, and one that can lie in the padding alone
    attributes = {
        "pads": [pads[0]] * 2 + [pads[1]] * 2,
        "strides": [stride, stride],
        "dilations": [dilation, dilation],
        "ceil_mode": int(ceil),
    }
    window = read_window((size, size), (kernel, kernel), attributes)
    assert window is not None
    assert window.out == (len(starts), len(starts))
    if window.same:
        assert _starts_of_same(size, extent, stride) == starts
    else:
        (before, after), _ = window.pads
        room = size + before + after - extent
        assert [start - before for start in range(0, room + 1, stride)] == starts
        assert window.needs_padding == (_starts_of_same(size, extent, stride) != starts and before + after > 0)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "same"),
    [(224, 3, 2, False), (225, 3, 2, True), (112, 3, 1, True), (7, 7, 1, True), (31, 5, 2, True), (32, 5, 2, False)],
)
def test_same_is_ours_by_size(size: int, kernel: int, stride: int, same: bool) -> None:
    """Half a kernel of padding is SAME at stride 1, and at stride 2 for odd maps: an even one is padded on one side."""
    window = read_window((size, size), (kernel, kernel), {"pads": [kernel // 2] * 4, "strides": [stride] * 2})
    assert window is not None
    assert (window.same, window.needs_padding) == (same, not same)


def test_only_what_windows_reach_is_padded() -> None:
    """A 3x3 window of stride 2 over 224 pixels with a pad of 1 on all sides never reaches the last one."""
    window = read_window((224, 224), (3, 3), {"pads": [1] * 4, "strides": [2, 2]})
    assert window is not None
    assert window.pads == ((1, 0), (1, 0))


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [((3,), {}), ((3, 3), {"auto_pad": b"SAME_UPPER"}), ((3, 3), {"pads": [-1, 0, 0, 0]}), ((10, 10), {})],
)
def test_other_windows_are_not_known(kernel: tuple[int, ...], attributes: dict[str, object]) -> None:
    """One dimension, padding that is not written out, cropping, and a window larger than the map are none."""
    assert read_window((9, 9), kernel, attributes) is None
