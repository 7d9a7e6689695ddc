from pathlib import Path

import pytest
import torch
from torch import Tensor

from dac_diffusion.ranking.similarity import AudioTextScorer

PAD, EOS = 0, 2


@pytest.fixture(scope="module")
def scorer() -> AudioTextScorer:
    torch.manual_seed(0)
    return AudioTextScorer(50, pooled_dim=12, width=48, max_length=16, embedding_dim=20).eval()


@pytest.fixture(scope="module")
def captions() -> Tensor:
    """Four captions (4, 8) of different lengths; the last is empty."""
    rows = [[7, 8, 9, 10, 11, 12, 13, EOS], [7, 9, 8, EOS], [7, 8, 9, EOS], [EOS]]
    return torch.tensor([row + [PAD] * (8 - len(row)) for row in rows])


@torch.inference_mode()
def embed(scorer: AudioTextScorer, captions: Tensor) -> Tensor:
    return scorer.embed_text(captions)


def test_everything_lies_on_the_unit_sphere(scorer: AudioTextScorer, captions: Tensor) -> None:
    text = embed(scorer, captions)
    audio = scorer.embed_audio(torch.randn(3, 12))
    assert text.shape == (4, 20)
    assert audio.shape == (3, 20)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(audio.norm(dim=-1), torch.ones(3))


def test_padding_changes_nothing(scorer: AudioTextScorer, captions: Tensor) -> None:
    longer = torch.nn.functional.pad(captions, (0, 8), value=PAD)
    torch.testing.assert_close(embed(scorer, longer), embed(scorer, captions))


def test_other_captions_of_the_batch_change_nothing(
    scorer: AudioTextScorer, captions: Tensor
) -> None:
    alone = torch.cat([embed(scorer, caption[None]) for caption in captions])
    torch.testing.assert_close(alone, embed(scorer, captions))


def test_the_order_of_words_counts(scorer: AudioTextScorer, captions: Tensor) -> None:
    _, swapped, right, _ = embed(scorer, captions)
    assert (swapped - right).abs().max() > 1e-3


def test_saved_and_loaded_it_scores_the_same(
    scorer: AudioTextScorer, captions: Tensor, tmp_path: Path
) -> None:
    scorer.save_pretrained(tmp_path)
    loaded = AudioTextScorer.from_pretrained(tmp_path).eval()
    assert torch.equal(embed(loaded, captions), embed(scorer, captions))
    assert loaded.logit_scale == scorer.logit_scale
