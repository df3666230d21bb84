"""Graphs of primitive layers: shapes, weights, MACs and peak activations by hand, non-square and one-channel inputs."""

from edgenas.space.layers import GraphBuilder


def test_a_non_square_input_of_one_channel_by_hand() -> None:
    """A spectrogram of one channel, 49x10: a strided convolution with batch norm, a depthwise one, a classifier."""
    b = GraphBuilder((1, 49, 10))
    y = b.conv_bn("first", 0, 64, 3, 2, activation="relu", bn_eps=1e-5)
    y = b.depthwise("depthwise", y, 3, 1, activation="relu", bn_eps=1e-5, transform="transform")
    y = b.global_pool("pool", y)
    b.linear("linear", b.flatten("flatten", y), 12)
    graph = b.graph
    assert [layer.shape for layer in graph.layers if layer.macs] == [(64, 25, 5), (64, 25, 5), (12, 1, 1)]
    assert graph.out_shape == (12, 1, 1)
    assert sum(layer.macs for layer in graph.layers) == 25 * 5 * 64 * 9 + 25 * 5 * 64 * 9 + 64 * 12
    assert graph.weight_shapes["first.conv.weight"] == (64, 1, 3, 3)
    assert graph.weight_shapes["depthwise.conv.weight"] == (64, 1, 3, 3)
    assert graph.weight_shapes["linear.weight"] == (12, 64)
    assert sum(layer.params for layer in graph.layers) == 2 * (64 * 9 + 2 * 64) + 64 * 12 + 12
    assert sum(layer.exported_params for layer in graph.layers) == 2 * (64 * 9 + 64) + 64 * 12 + 12
    # While the depthwise convolution runs: its input and its output. Activations overwrite their input.
    assert graph.peak_values == 2 * 64 * 25 * 5


def test_a_value_lives_until_its_last_reader() -> None:
    """An input that is added at the end lives all the way; the sum overwrites the branch."""
    b = GraphBuilder((8, 4, 6))
    wide = b.conv("wide", 0, 32)
    narrow = b.conv("narrow", wide, 8)
    b.add("add", narrow, 0)
    assert b.graph.last_uses == ((), (1,), (2, 0))
    assert b.graph.peak_values == 24 * (8 + 32 + 8)


def test_a_sum_of_two_live_values_needs_a_buffer() -> None:
    """An elementwise layer takes a new buffer when both of its inputs are read again."""
    b = GraphBuilder((8, 4, 4))
    y = b.conv("one", 0, 8)
    total = b.add("add", y, 0)
    b.add("again", b.add("more", total, y), 0)
    assert b.graph.peak_values == 16 * 8 * 3


def test_a_gate_scales_the_channels_of_its_input() -> None:
    """Squeeze-excite reduces the means of all channels and expands them to one factor for each channel."""
    b = GraphBuilder((16, 5, 7))
    b.squeeze_excite("se", 0, 4)
    assert b.graph.out_shape == (16, 5, 7)
    assert b.graph.weight_shapes == {
        "se.reduce.weight": (4, 16, 1, 1),
        "se.reduce.bias": (4,),
        "se.expand.weight": (16, 4, 1, 1),
        "se.expand.bias": (16,),
    }
    assert b.graph.peak_values == 16 * 35 + 16 + 4
