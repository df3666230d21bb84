"""Elastic layers, by hand."""

from __future__ import annotations

import pytest
import torch

from edgenas.errors import SpaceError
from edgenas.ofa.layers import ElasticBatchNorm, ElasticBlock, KernelTransform
from edgenas.space.blocks.plain import ConvPart


def test_the_largest_kernel_is_untouched() -> None:
    """The largest kernel is the weight itself."""
    weight = torch.arange(49.0).view(1, 1, 7, 7)
    assert KernelTransform((3, 5, 7))(weight, 7) is weight


def test_a_fresh_transform_cuts_out_the_centre() -> None:
    """Matrices begin as the identity: a smaller kernel is the centre of the larger."""
    weight = torch.arange(2 * 25.0).view(2, 1, 5, 5)
    small = KernelTransform((3, 5))(weight, 3)
    assert small[0, 0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
    assert small[1, 0].tolist() == [[31, 32, 33], [36, 37, 38], [41, 42, 43]]


def test_a_full_convolution_has_a_smaller_kernel_too() -> None:
    """The matrices are shared by all pairs of an output and an input channel."""
    weight = torch.arange(2 * 3 * 25.0).view(2, 3, 5, 5)
    assert torch.equal(KernelTransform((3, 5))(weight, 3), weight[:, :, 1:4, 1:4])


def test_a_matrix_row_makes_one_number_of_the_smaller_kernel() -> None:
    """Number i of the smaller kernel is row i of the matrix times the flattened centre."""
    transform = KernelTransform((3, 5))
    matrix = transform.get_parameter("5to3_matrix")
    with torch.no_grad():
        matrix.zero_()
        matrix[0, 8] = 2.0  # top left becomes twice the bottom right of the centre
        matrix[5, 0] = matrix[5, 1] = 1.0  # middle right becomes the sum of the first two
    small = transform(torch.arange(25.0).view(1, 1, 5, 5), 3)
    assert small[0, 0].tolist() == [[36, 0, 0], [0, 0, 13], [0, 0, 0]]


def test_seven_reaches_three_through_five() -> None:
    """Kernel 3 of 7 passes both matrices, one after the other."""
    transform = KernelTransform((3, 5, 7))
    with torch.no_grad():
        transform.get_parameter("7to5_matrix").mul_(2)
        transform.get_parameter("5to3_matrix").mul_(5)
    weight = torch.arange(49.0).view(1, 1, 7, 7)
    assert transform(weight, 3)[0, 0].tolist() == [[160, 170, 180], [230, 240, 250], [300, 310, 320]]


def test_own_kernel_sizes_have_their_own_matrix() -> None:
    """With kernels 3 and 7 there is one matrix, from 7 straight to 3."""
    names = [name for name, _ in KernelTransform((3, 7)).named_parameters()]
    assert names == ["7to3_matrix"]


def test_batch_norm_uses_its_leading_channels() -> None:
    """In eval mode an input with two of three channels is normalised with the first two statistics."""
    norm = ElasticBatchNorm(3, 1e-5).eval()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 1e9]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0, 1e9]))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 1e9]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 1e9]))
    out = norm(torch.full((1, 2, 1, 1), 5.0))
    # (5 - 1) / 2 = 2 and 2 (5 - 2) / 3 + 1 = 3, up to the eps of 1e-5
    torch.testing.assert_close(out.flatten(), torch.tensor([2.0, 3.0]), rtol=0, atol=1e-5)


def test_batch_norm_in_training_moves_only_the_statistics_it_used() -> None:
    """A batch of two channels moves two running means by a tenth of the way; the third stays."""
    norm = ElasticBatchNorm(3, 1e-5).train()
    norm(torch.tensor([[[[10.0]], [[20.0]]], [[[30.0]], [[40.0]]]]))
    # channel means 20 and 30; unbiased variances 200 and 200: 0.9 * 1 + 0.1 * 200
    torch.testing.assert_close(norm.running_mean, torch.tensor([2.0, 3.0, 0.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([20.9, 20.9, 1.0]))


def test_kernels_of_several_sizes_need_matrices() -> None:
    """A convolution that is elastic in its kernel, but names no matrices, is refused by name."""
    parts = tuple(ConvPart((3, 8, 8), 4, kernel) for kernel in (5, 3))
    with pytest.raises(SpaceError, match="conv has kernels of 5 and 3; name its matrices with transform"):
        ElasticBlock(parts)
