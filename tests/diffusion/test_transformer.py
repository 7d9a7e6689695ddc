import torch

from dac_diffusion.diffusion.transformer import HalfSquaredReLU, LocalMixing, attend


def test_attention_is_that_of_pytorch():
    query, key, value = torch.randn(3, 2, 2, 5, 8)
    mask = torch.rand(2, 1, 1, 5) > 0.3
    mask[..., 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attend(query, key, value, mask), expected)


def test_half_squared_relu():
    hidden = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(HalfSquaredReLU.apply(hidden), hidden.relu().square() / 2)
    assert torch.autograd.gradcheck(HalfSquaredReLU.apply, (hidden,))


def test_local_mixing_is_a_depthwise_convolution_with_a_residual():
    torch.manual_seed(0)
    mixing = LocalMixing(width=6, reach=2).double()
    hidden = torch.randn(3, 7, 6, dtype=torch.float64)
    assert torch.equal(mixing(hidden), hidden)  # silent at first
    with torch.no_grad():
        mixing.weight.normal_()
    kernel = mixing.weight.T[:, None]  # (W, 1, 5)
    mixed = torch.nn.functional.conv1d(hidden.mT, kernel, padding=2, groups=6).mT
    torch.testing.assert_close(mixing(hidden), hidden + mixed)


def test_local_mixing_reaches_no_further_than_it_says():
    mixing = LocalMixing(width=1, reach=1)
    torch.nn.init.ones_(mixing.weight)
    hidden = torch.zeros(1, 5, 1)
    hidden[0, 2] = 1.0
    assert mixing(hidden).flatten().tolist() == [0.0, 1.0, 2.0, 1.0, 0.0]
