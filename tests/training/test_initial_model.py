"""Trainings that start from another captioner's weights."""

from pathlib import Path

import pytest
import torch

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.training.building import take_over_weights
from tests.helpers import tiny_captioner


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny_captioner().save_pretrained(tmp_path / "captioner")
    return tmp_path / "captioner"


def twin(saved: Path) -> tuple[CaptionDenoiser, EmbeddingSpace]:
    """A denoiser and a latent space of the same sizes, with other weights."""
    other = DiffusionCaptioner.from_pretrained(saved, "float32")
    for module in (other.denoiser, other.latent_space):
        for parameter in module.parameters():
            torch.nn.init.constant_(parameter, 0.5)
    return other.denoiser, other.latent_space


def test_weights_are_taken_over(saved: Path) -> None:
    denoiser, space = twin(saved)
    take_over_weights(str(saved), denoiser, space)
    original = DiffusionCaptioner.from_pretrained(saved, "float32")
    for ours, theirs in ((denoiser, original.denoiser), (space, original.latent_space)):
        expected = theirs.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in ours.state_dict().items())


def test_other_sizes_are_an_error_of_one_line(saved: Path) -> None:
    denoiser, _ = twin(saved)
    with pytest.raises(ConfigError, match=r"initial_model=.*other sizes") as caught:
        take_over_weights(str(saved), denoiser, EmbeddingSpace(50, latent_dim=16))
    assert "\n" not in str(caught.value)


def test_a_missing_captioner_is_named(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        take_over_weights(str(tmp_path / "nowhere"), *twin(saved))
