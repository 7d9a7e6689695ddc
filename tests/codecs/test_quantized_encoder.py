"""QuantizedEncoder against the encoder and the quantiser it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.encoders.base import weights_digest
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import load_saved_model
from tests.codecs.published_codecs import noise

RATE = 16000


def make_quantizer(fitted_on: dict[str, object] | None = None) -> ResidualQuantizer:
    generator = torch.Generator().manual_seed(0)
    quantizer = ResidualQuantizer(48, 3, 16, fitted_on=fitted_on)
    for stage in range(3):
        quantizer.codebooks[stage] = torch.randn(16, 48, generator=generator) / 2**stage
    return quantizer.eval()


@torch.inference_mode()
def test_codes_are_those_of_the_encoders_features() -> None:
    encoder, quantizer = random_encoder("beats"), make_quantizer()
    quantized = QuantizedEncoder.from_parts(encoder, quantizer)
    waveform = noise(3, 2.0, rate=RATE)
    lengths = torch.tensor([2 * RATE, 17000, 30000])
    audio, features = quantized(waveform, lengths), encoder(waveform, lengths)
    assert audio.features.shape == (3, features.features.shape[1], 3)
    assert audio.features.dtype == torch.long
    assert torch.equal(audio.mask, features.mask)
    assert torch.equal(audio.pooled, features.pooled)
    expected = quantizer.codes(features.features)
    assert torch.equal(audio.features[audio.mask], expected[audio.mask])
    assert len(expected.unique()) > 5
    assert not audio.features[~audio.mask].any()
    assert (quantized.num_codebooks, quantized.codebook_size) == (3, 16)
    assert (quantized.feature_dim, quantized.pooled_dim) == (3, 48)
    assert quantized.canvas_samples(RATE + 1) == encoder.canvas_samples(RATE + 1)


@torch.inference_mode()
def test_saved_and_loaded_again(tmp_path: Path) -> None:
    quantized = QuantizedEncoder.from_parts(random_encoder("beats"), make_quantizer())
    quantized.save_pretrained(tmp_path)
    again = load_saved_model(QuantizedEncoder, tmp_path)
    waveform, length = noise(1, 1.0, rate=RATE), torch.tensor([RATE])
    assert torch.equal(again(waveform, length).features, quantized(waveform, length).features)


def test_a_quantiser_of_other_features_is_refused() -> None:
    encoder = random_encoder("beats")
    made_of = {
        "name": "beats",
        "settings": {"frequency_pooling": "none"},
        "weights_sha256": weights_digest(encoder),
    }
    QuantizedEncoder.from_parts(encoder, make_quantizer(made_of))
    for change, message in (
        (
            {"name": "ced"},
            "was fitted on features of ced with frequency_pooling none, not of beats",
        ),
        (
            {"settings": {"frequency_pooling": "mean"}},
            "frequency_pooling mean, not of beats with none",
        ),
        ({"weights_sha256": "0" * 64}, "was fitted on features of beats with other weights; give"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            QuantizedEncoder.from_parts(encoder, make_quantizer({**made_of, **change}))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="for features of width 768, but those of beats are 48"):
        QuantizedEncoder.from_parts(encoder, ResidualQuantizer())
    with pytest.raises(ConfigError, match="encoder_name='codes': its features are codes already"):
        QuantizedEncoder("codes")
