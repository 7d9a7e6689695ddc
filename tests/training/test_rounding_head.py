"""The rounding head learns to read latents back, and how that is measured."""

from pathlib import Path

import pytest
import torch

from dac_diffusion.text.bert import load_bert
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.training.rounding_head import (
    HeadTrainingConfig,
    add_noise,
    rounding_accuracy,
    train_head,
)
from tests.text.tiny_masked_bert import write_masked_bert

CAPTIONS = ["a dog barks", "rain falls and then wind blows", "a dog barks and rain falls", "wind"]
LENGTH = 10


@pytest.fixture
def space(tmp_path: Path) -> SplitBertSpace:
    write_masked_bert(tmp_path, with_head=False, scale=0.1)
    torch.manual_seed(0)
    space = SplitBertSpace.from_bert(load_bert(tmp_path), 2)
    space.fit_statistics(CAPTIONS, LENGTH)
    return space


def test_training_the_head_makes_rounding_exact(space: SplitBertSpace) -> None:
    tokenizer = space._attached().tokenizer
    before = rounding_accuracy(space, tokenizer, CAPTIONS, LENGTH)[0]
    upper = {name: p.clone() for name, p in space.upper.named_parameters()}
    config = HeadTrainingConfig(steps=150, batch_size=16, learning_rate=1e-2, noise=0.1)
    train_head(space, tokenizer, CAPTIONS, LENGTH, config, seed=0, progress=False)
    assert before < 0.9
    assert rounding_accuracy(space, tokenizer, CAPTIONS, LENGTH) == (1.0, 1.0)
    assert rounding_accuracy(space, tokenizer, CAPTIONS, LENGTH, noise=0.999)[0] < 0.9
    assert all(torch.equal(p, upper[name]) for name, p in space.upper.named_parameters())


def test_accuracy_counts_tokens_without_padding_and_whole_captions(
    space: SplitBertSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = space._attached().tokenizer
    wrong = tokenizer.convert_tokens_to_ids("wind")

    def decode(latents: torch.Tensor) -> torch.Tensor:  # always says: wind
        return torch.nn.functional.one_hot(
            torch.full(latents.shape[:-1], wrong), space.vocabulary_size
        ).float()

    monkeypatch.setattr(space, "decode", decode)
    accuracy = rounding_accuracy(space, tokenizer, CAPTIONS, LENGTH)
    # Words with [CLS] and [SEP]: 5 + 8 + 8 + 3; "wind" stands twice in the captions.
    assert accuracy == (2 / 24, 0.0)


def test_the_share_of_noise_is_of_the_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = add_noise(torch.zeros(3, 200, 200), torch.tensor([0.0, 0.25, 1.0]), generator)
    torch.testing.assert_close(
        noisy.square().mean(dim=(1, 2)), torch.tensor([0.0, 0.25, 1.0]), atol=0.01, rtol=0
    )
