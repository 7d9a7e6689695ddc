import pytest
import torch
import torch.nn.functional as F

from dac_diffusion.diffusion.stable_linear import StableLinear

ROWS = [1, 2, 7, 10, 24, 24 * 5, 24 * 10, 24 * 20, 24 * 64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [(256, 1024), (512, 256), (1024, 256), (384, 384), (128, 256)])
def test_rows_do_not_depend_on_how_many_there_are(sizes, threads, dtype):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = torch.Generator().manual_seed(0)
        layer = StableLinear(*sizes).eval().to(dtype)
        rows = torch.randn(24 * 320, sizes[0], generator=generator).to(dtype)
        with torch.no_grad():
            everything = layer(rows)
            for count in ROWS:
                assert torch.equal(layer(rows[:count]), everything[:count]), count
    finally:
        torch.set_num_threads(before)


def test_it_is_a_linear_layer_in_training_and_out_of_it():
    layer = StableLinear(700, 30)
    inputs = torch.randn(3, 5, 700)
    expected = F.linear(inputs, layer.weight, layer.bias)
    assert torch.equal(layer(inputs), expected)
    torch.testing.assert_close(layer.eval()(inputs), expected, atol=1e-5, rtol=1e-5)
    unbiased = StableLinear(700, 30, bias=False).eval()
    torch.testing.assert_close(
        unbiased(inputs), F.linear(inputs, unbiased.weight), atol=1e-5, rtol=1e-5
    )


def test_no_rows_are_allowed():
    assert StableLinear(8, 4).eval()(torch.zeros(0, 8)).shape == (0, 4)
