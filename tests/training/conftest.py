"""A few short synthesized scenes and tiny networks for the tests of the two training tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dac_diffusion.data.scene_cache import ScenePool
    from dac_diffusion.training.caption_sources import FrozenParts


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScenePool, ScenePool]:
    """16 training and 6 validation scenes of at most 3 s."""
    from dac_diffusion.data.scene_cache import load_or_render_pool
    from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig

    folder = tmp_path_factory.mktemp("pools")
    config = SoundscapeConfig(shortest_seconds=2.0, longest_seconds=3.0, relation_shares=(0.2,) * 5)
    return (
        load_or_render_pool(folder, config, "train", 16, progress=False),
        load_or_render_pool(folder, config, "validation", 6, progress=False),
    )


@pytest.fixture
def parts(pools: tuple[ScenePool, ScenePool]) -> FrozenParts:
    """Encoder, scorer and tokenizer with random weights, the same in every test."""
    import torch

    from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
    from dac_diffusion.ranking.similarity import AudioTextScorer
    from dac_diffusion.text.tokenizer import train_tokenizer
    from dac_diffusion.training.caption_sources import FrozenParts

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = train_tokenizer([text for group in pools[0].captions for text in group], 400)
    return FrozenParts(
        ConvolutionalEncoder(channels=(4, 8, 8, 16), width=16, depth=1, dropout=0.0),
        AudioTextScorer(len(tokenizer), 16, width=24, depth=1, max_length=24, dropout=0.0),
        tokenizer,
    )
