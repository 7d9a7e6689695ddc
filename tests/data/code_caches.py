"""An encoder of codes of the tiny encoder's features, and feature caches of both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer, nearest_entries
from dac_diffusion.data.feature_encoding import FeatureSettings
from dac_diffusion.data.feature_preparation import PreparedFeatures, prepare_features
from dac_diffusion.data.published.dataset import CaptionDataset
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.loading import load_encoder
from tests.helpers import noise

BOOKS, ENTRIES = 3, 6


def save_code_encoder(
    folder: Path, weights: Path, entries: int = ENTRIES, shift: int = 0
) -> CodeEncoder:
    """A code encoder on the tiny one, whose codes are ENTRIES values from `shift` up."""
    encoder = load_encoder("small", weights)
    features = _features_of_noise(encoder)  # (R, D)
    generator = torch.Generator().manual_seed(0)
    quantizer = ResidualQuantizer(encoder.feature_dim, BOOKS, entries)
    for stage in range(BOOKS):
        chosen = torch.randperm(len(features), generator=generator)[:ENTRIES]
        book = torch.full((entries, encoder.feature_dim), 1e3)  # too far away to be chosen
        book[shift : shift + ENTRIES] = features[chosen]
        quantizer.codebooks[stage] = book
        features = features - book[nearest_entries(features, book)]
    made = CodeEncoder.from_parts(QuantizedEncoder.from_parts(encoder, quantizer), encoder)
    made.save_pretrained(folder)
    return made


@torch.inference_mode()
def _features_of_noise(encoder: ConvolutionalEncoder) -> Tensor:
    waveforms = torch.stack([torch.from_numpy(noise(2.0, seed)) for seed in range(6)])
    lengths = torch.full((6,), waveforms.shape[1])
    return encoder(waveforms, lengths).features.flatten(0, 1)


def prepare_codes(dataset: CaptionDataset, output: Path, weights: Path) -> PreparedFeatures:
    """Make a cache with two clips in each shard."""
    settings = FeatureSettings("codes", weights, clips_per_shard=2)
    return prepare_features(dataset, output, settings, progress=False)
