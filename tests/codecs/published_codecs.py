"""Published codecs in small widths, with random weights, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

from dac_diffusion.codecs.descript import DESCRIPT_SETTINGS

RATE, HOP = 24000, 320


def noise(count: int, seconds: float, seed: int = 0, rate: int = RATE) -> Tensor:
    """Noise (count, T) of another loudness every 10th of a second."""
    generator = torch.Generator().manual_seed(seed)
    samples = round(seconds * rate)
    loudness = 10 ** (-2 * torch.rand(count, -(-samples * 10 // rate), generator=generator))
    steps = loudness.repeat_interleave(rate // 10, dim=1)[:, :samples]
    return steps * torch.randn(count, samples, generator=generator)


@torch.no_grad()
def make_encodec(**settings: Any) -> EncodecModel:
    """The published settings but for the widths; codebooks of about the size of what they code."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(num_filters=4, hidden_size=16, **settings)).eval()
    conv = model.encoder.layers[-1].conv
    _standardise(model, conv.parametrizations.weight.original0, conv.bias)
    left = model.encoder(noise(1, 4.0)[:, None])[0].T  # (S, D)
    for layer in model.quantizer.layers:
        book = layer.codebook.embed
        book.copy_(left.mean(dim=0) + left.std(dim=0) * torch.randn(book.shape))
        left = left - layer.codebook.decode(layer.codebook.encode(left))
    return model


@torch.no_grad()
def make_descript(**settings: Any) -> DacModel:
    """The published settings but for the widths; weights that keep the signal's size."""
    torch.manual_seed(0)
    small = {"encoder_hidden_size": 4, "decoder_hidden_size": 16}
    model = DacModel(DacConfig(**{**DESCRIPT_SETTINGS, **small, **settings})).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            module.reset_parameters()
            nn.init.normal_(module.bias, std=0.1)
    _standardise(model, model.encoder.conv2.weight, model.encoder.conv2.bias)
    return model


def _standardise(model: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Spread the encoder's output, of which random layers leave little; codes would be chance."""
    hidden = model.encoder(noise(1, 4.0)[:, None])[0]  # type: ignore[operator]
    weight.div_(hidden.std(dim=1)[:, None, None])
    bias.sub_(hidden.mean(dim=1)).div_(hidden.std(dim=1))


def save(model: nn.Module, folder: Path) -> Path:
    """A folder as it would be downloaded."""
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def same_codes(found: Tensor, expected: Tensor) -> None:
    """Equal but for a few, where two entries are equally near and the last bits decide."""
    assert found.shape == expected.shape
    assert (found == expected).float().mean() > 0.99
