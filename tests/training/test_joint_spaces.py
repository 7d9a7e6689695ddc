"""The joint audio-text spaces: both sides belong together, and to what is saved."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training.caption_sources import FrozenParts
from dac_diffusion.training.joint_spaces import clap_space, small_space
from tests.helpers import noise
from tests.metrics.fabricated_models import save_clap


def test_the_small_space_is_that_of_encoder_and_scorer(parts: FrozenParts) -> None:
    encoder, scorer, tokenizer = parts.encoder.eval(), parts.scorer.eval(), parts.tokenizer
    space = small_space(parts)
    sounds = torch.stack([torch.from_numpy(noise(2.5, seed)) for seed in range(3)])
    lengths, texts = torch.tensor([80000, 50000, 80000]), ["a dog barks", "rain falls on a roof"]
    with torch.no_grad():
        plain = encoder(sounds, lengths).pooled
        joint = space.encoder(sounds, lengths).pooled
        audio = scorer.embed_audio(plain)
        text = scorer.embed_text(encode_captions(tokenizer, texts, scorer.config.max_length))
        torch.testing.assert_close(space.embed_pooled(plain), audio)
        torch.testing.assert_close(joint, audio * joint.shape[1] ** 0.5)
        torch.testing.assert_close(space.embed_texts(texts), text)
        # The saved captioner ranks by this scorer, which gets vectors of the joint space.
        assert space.scorer is not None
        torch.testing.assert_close(space.scorer.embed_audio(joint), audio, rtol=0, atol=1e-5)
        ids = encode_captions(tokenizer, texts, scorer.config.max_length)
        assert torch.equal(space.scorer.embed_text(ids), text)
        half = copy.deepcopy(space.scorer).bfloat16()
        cosine = (half.embed_audio(joint.bfloat16()) * audio).sum(dim=-1)
        assert cosine.min() > 0.999
    trained = [*space.encoder.parameters(), *space.scorer.parameters()]
    assert not any(parameter.requires_grad for parameter in trained)


def test_the_space_of_clap_is_that_of_its_two_sides(tmp_path: Path) -> None:
    save_clap(tmp_path)
    encoder = load_encoder("htsat", tmp_path)
    space = clap_space(encoder, tmp_path, "cpu")
    sound = torch.from_numpy(noise(1.0, rate=8000))[None]
    with torch.no_grad():
        pooled = encoder(sound, torch.tensor([8000])).pooled
        torch.testing.assert_close(space.embed_pooled(pooled), pooled)
        heard = space.encoder(sound, torch.tensor([8000]))
    torch.testing.assert_close(heard.pooled, pooled * 8**0.5)
    texts = ["a dog bark", "rain"]
    assert torch.equal(space.embed_texts(texts), ClapTextEncoder.from_published(tmp_path)(texts))
    assert space.scorer is None
