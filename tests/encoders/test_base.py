import torch
from torch import nn

from dac_diffusion.encoders.base import AudioFeatures, weights_digest


def features() -> AudioFeatures:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    return AudioFeatures(torch.randn(3, 2, 4), mask, torch.randn(3, 5))


def test_select_takes_the_same_windows_of_everything() -> None:
    audio = features()
    for chosen in ([2, 0], torch.tensor([2, 0])):
        selected = audio.select(chosen)
        assert torch.equal(selected.features, audio.features[[2, 0]])
        assert torch.equal(selected.mask, audio.mask[[2, 0]])
        assert torch.equal(selected.pooled, audio.pooled[[2, 0]])
    assert audio.select(slice(1, 3)).features.shape == (2, 2, 4)


def test_to_keeps_the_mask_boolean() -> None:
    half = features().to(dtype=torch.bfloat16)
    assert half.features.dtype == half.pooled.dtype == torch.bfloat16
    assert half.mask.dtype == torch.bool


def test_codes_stay_whole_numbers() -> None:
    codes = torch.tensor([[[0, 1023, 65535]]])
    audio = AudioFeatures(codes, torch.ones(1, 1, dtype=torch.bool), torch.randn(1, 5))
    half = audio.to("cpu", torch.float16)
    assert half.features.dtype == torch.long
    assert torch.equal(half.features, codes)
    assert half.pooled.dtype == torch.float16


def test_a_digest_is_of_the_weights_alone() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert weights_digest(one) != weights_digest(other)
    other.load_state_dict(one.state_dict())
    assert weights_digest(one) == weights_digest(other) == weights_digest(other.eval())
    assert weights_digest(one) != weights_digest(nn.Sequential(one))  # other names
    before = weights_digest(one)
    assert weights_digest(one.half()) != before
