"""The encoder-decoder over audio features, and its likelihood."""

from pathlib import Path

import pytest
import torch

from dac_diffusion.autoregressive.network import (
    EncodedAudio,
    caption_logits,
    encode_audio,
    sequence_log_likelihood,
)
from dac_diffusion.autoregressive.plain import AudioProjection, build_network
from dac_diffusion.configuration import load_config
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from dac_diffusion.training.settings import TrainingConfig
from tests.helpers import tiny_autoregressive

CONFIGS = Path(__file__).parents[2] / "configs"


def features(clips: int, frames: int = 5, seed: int = 0) -> AudioFeatures:
    generator = torch.Generator().manual_seed(seed)
    return AudioFeatures(
        torch.randn(clips, frames, 32, generator=generator),
        torch.ones(clips, frames, dtype=torch.bool),
        torch.randn(clips, 32, generator=generator),
    )


def test_it_has_as_many_parameters_as_the_diffusion_captioner() -> None:
    config = load_config(TrainingConfig, CONFIGS / "autoregressive.yaml")
    vocabulary, audio = config.text.vocabulary_size, config.encoder.width
    sizes = config.denoiser
    denoiser = CaptionDenoiser(
        latent_dim=config.text.latent_dim,
        audio_dim=audio,
        pooled_dim=audio,
        width=sizes.width,
        depth=sizes.depth,
        heads=sizes.heads,
        max_length=config.text.max_length,
        mlp_ratio=sizes.mlp_ratio,
        local_reach=sizes.local_reach,
    )
    space = EmbeddingSpace(vocabulary, config.text.latent_dim)
    network = build_network(config.autoregressive, vocabulary)
    projection = AudioProjection(audio, audio, config.autoregressive.width)

    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    assert count(network, projection) == pytest.approx(count(denoiser, space), rel=0.05)


def test_masked_frames_have_no_influence() -> None:
    captioner = tiny_autoregressive()
    audio = features(2)
    mask = audio.mask.clone()
    mask[:, 3:] = False
    other = audio.features.clone()
    other[:, 3:] = 7.0
    ids = torch.tensor([[5, 6, EOS_ID], [7, EOS_ID, PAD_ID]])
    logits = []
    for frames in (audio.features, other):
        masked = AudioFeatures(frames, mask, audio.pooled)
        encoded = encode_audio(captioner.projection, captioner.network, masked)
        logits.append(caption_logits(captioner.network, encoded, ids))
    assert torch.allclose(*logits, atol=1e-5)


def test_a_token_is_judged_by_the_ones_before_it_only() -> None:
    captioner = tiny_autoregressive()
    encoded = encode_audio(captioner.projection, captioner.network, features(1))
    first, second = torch.tensor([[5, 6, 7, EOS_ID]]), torch.tensor([[5, 6, 9, 8]])
    a, b = (caption_logits(captioner.network, encoded, ids) for ids in (first, second))
    assert torch.allclose(a[:, :3], b[:, :3], atol=1e-5)
    assert not torch.allclose(a[:, 3], b[:, 3], atol=1e-3)


def test_the_likelihood_is_the_mean_over_tokens_and_end() -> None:
    captioner = tiny_autoregressive()
    encoded = encode_audio(captioner.projection, captioner.network, features(2))
    ids = torch.tensor([[5, 6, EOS_ID, PAD_ID], [7, 8, 9, EOS_ID]])
    found = sequence_log_likelihood(captioner.network, encoded, ids, PAD_ID)
    for row, length in ((0, 3), (1, 4)):
        one = EncodedAudio(encoded.hidden[row : row + 1], encoded.mask[row : row + 1])
        total, before = 0.0, [BOS_ID]
        for token in ids[row, :length].tolist():
            output = captioner.network(
                encoder_outputs=(one.hidden,),
                attention_mask=one.mask,
                decoder_input_ids=torch.tensor([before]),
            )
            total += float(output.logits[0, -1].log_softmax(dim=-1)[token].detach())
            before.append(token)
        assert float(found[row].detach()) == pytest.approx(total / length, abs=1e-4)
