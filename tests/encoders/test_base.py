import torch

from dac_diffusion.encoders.base import AudioFeatures


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
