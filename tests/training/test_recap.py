"""Training of RECAP: what is retrieved for whom, what counts in the loss, and that it falls."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from dac_diffusion.autoregressive.bottleneck_gpt2 import SmallGPT2Config
from dac_diffusion.autoregressive.network import Prompts
from dac_diffusion.autoregressive.retrieval_prompt import prompt_ids
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from dac_diffusion.training.batches import to_device
from dac_diffusion.training.caption_sources import (
    CaptionBatch,
)
from dac_diffusion.training.recap import (
    RecapConfig,
    RecapTrainer,
    RetrievalBatch,
    RetrievedCaptions,
    build_recap_trainer,
    cut_at_end,
    make_decoder,
)
from tests.autoregressive.tiny_gpt2 import write_gpt2

WORDS = train_tokenizer(["a dog barks while rain falls and wind blows"], 100)
SMALL = SmallGPT2Config(width=32, layers=2, heads=2, dropout=0.0, max_positions=256)


class Fixed:
    """A source with three clips whose pooled vectors are those of its captions."""

    def __init__(self, tokenizer: Any, with_clips: bool = True) -> None:
        self.tokenizer, self.with_clips = tokenizer, with_clips

    def batch(self, step: int, rank: int) -> CaptionBatch:
        clips = [(step + rank + i) % 3 for i in range(2)]
        texts = [["a dog barks", "dog"], ["rain falls", "rain"], ["wind blows", "wind"]]
        ids = encode_captions(self.tokenizer, [t for c in clips for t in texts[c]], 12)
        frames = torch.eye(3)[clips][:, None].expand(-1, 4, -1)  # (B, S, D)
        audio = AudioFeatures(frames, torch.ones(2, 4, dtype=torch.bool), frames[:, 0])
        batch = CaptionBatch(audio, ids.view(2, 2, 12))
        return CaptionBatch(audio, batch.token_ids, tuple(clips)) if self.with_clips else batch

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        return self.batch(0, 0).audio, [["a dog barks"], ["rain falls"]][:count]


FOUND = [("rain falls", "wind blows"), ("wind blows",), ()]


def small_trainer(seed: int = 0) -> RecapTrainer:
    torch.manual_seed(seed)
    config = RecapConfig(small=SMALL, bottleneck=2)
    return build_recap_trainer(config, make_decoder(config, WORDS, 0), 3, max_length=12)


def test_a_batch_has_the_prompts_of_its_clips() -> None:
    source = RetrievedCaptions(Fixed(WORDS), FOUND)
    for step, clips in ((0, (0, 1)), (1, (1, 2)), (2, (2, 0))):
        batch = source.batch(step, 0)
        assert batch.clips == clips
        assert batch.prompts.left == [prompt_ids(WORDS, FOUND[clip]) for clip in clips]
        assert torch.equal(batch.token_ids, Fixed(WORDS).batch(step, 0).token_ids)
    assert source.batch(0, 1).clips == (1, 2)
    assert source.tokenizer is WORDS
    assert source.first(1)[1] == [["a dog barks"]]


def test_long_captions_are_cut_in_prompts() -> None:
    (left, _) = RetrievedCaptions(Fixed(WORDS), FOUND, longest_caption=1).batch(0, 0).prompts.left
    assert left == prompt_ids(WORDS, ["rain", "wind"])


def test_a_source_that_does_not_name_its_clips() -> None:
    with pytest.raises(TypeError, match="Fixed does not say which clips are in a batch"):
        RetrievedCaptions(Fixed(WORDS, with_clips=False), FOUND).batch(0, 0)


def test_batches_travel() -> None:
    batch = RetrievedCaptions(Fixed(WORDS), FOUND).batch(0, 0)
    moved = to_device(pickle.loads(pickle.dumps(batch)), torch.device("cpu"))
    assert isinstance(moved, RetrievalBatch)
    assert moved.prompts == batch.prompts
    assert moved.clips == batch.clips


def test_what_counts_in_the_loss() -> None:
    trainer = small_trainer().eval()
    batch = RetrievedCaptions(Fixed(WORDS), FOUND).batch(0, 0)
    with torch.no_grad():
        loss = float(trainer(batch, torch.Generator())["loss"])
    hidden, mask = trainer.projection(batch.audio)
    total, count = 0.0, 0
    for clip in range(2):
        for caption in batch.token_ids[clip].tolist():
            ids = [*batch.prompts.left[clip], *caption[: caption.index(WORDS.eos_token_id) + 1]]
            logits = trainer.network(
                torch.tensor([ids]),
                encoder_hidden_states=hidden[clip : clip + 1],
                encoder_attention_mask=mask[clip : clip + 1],
            ).logits[0]
            logarithms = logits.log_softmax(dim=-1).detach()
            for place in range(len(batch.prompts.left[clip]), len(ids)):
                total -= float(logarithms[place - 1, ids[place]])
                count += 1
    assert loss == pytest.approx(total / count, rel=1e-4)


def test_prompts_and_audio_both_matter() -> None:
    trainer = small_trainer().eval()
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    batch = RetrievedCaptions(Fixed(WORDS), FOUND).batch(0, 0)
    audio = AudioFeatures(batch.audio.features.flip(0), batch.audio.mask, batch.audio.pooled)
    swapped = Prompts(batch.prompts.left[::-1], batch.prompts.right)
    others = (
        RetrievalBatch(audio, batch.token_ids, prompts=batch.prompts),
        RetrievalBatch(batch.audio, batch.token_ids, prompts=swapped),
    )
    with torch.no_grad():
        loss = float(trainer(batch, torch.Generator())["loss"])
        for other in others:
            assert abs(float(trainer(other, torch.Generator())["loss"]) - loss) > 1e-3


def test_the_loss_falls() -> None:
    trainer = small_trainer()
    source = RetrievedCaptions(Fixed(WORDS), FOUND)
    optimizer = torch.optim.AdamW(trainer.parameters(), 5e-3)
    losses = []
    for step in range(40):
        loss = trainer(source.batch(step, 0), torch.Generator())["loss"]
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_with_published_weights_the_cross_attention_alone_is_trained(tmp_path: Path) -> None:
    write_gpt2(tmp_path / "gpt2", positions=256)
    config = RecapConfig(gpt2=str(tmp_path / "gpt2"), retrieved=2, longest_caption=20)
    model = make_decoder(config, WORDS, seed=0)
    trainer = build_recap_trainer(config, model, audio_dim=3, max_length=12)
    before = {name: value.clone() for name, value in trainer.state_dict().items()}
    source = RetrievedCaptions(Fixed(model.tokenizer), FOUND)
    optimizer = torch.optim.AdamW([p for p in trainer.parameters() if p.requires_grad], 2e-2)
    losses = []
    for step in range(30):
        loss = trainer(source.batch(3 * step, 0), torch.Generator())["loss"]
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
    after = trainer.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name, p in trainer.named_parameters() if p.requires_grad}
    assert changed == trained
    assert {"projection.features_in.weight", "projection.features_in.bias"} < trained
    assert all("crossattention" in name for name in trained if name.startswith("network."))


def test_a_caption_ends_with_its_first_end_token() -> None:
    ids = torch.tensor([[[5, 13, 6, 13, 0], [5, 6, 7, 8, 13], [0, 5, 13, 13, 0]]])
    expected = torch.tensor([[[5, 13, 0, 0, 0], [5, 6, 7, 8, 13], [0, 5, 13, 0, 0]]])
    assert torch.equal(cut_at_end(ids, 13, 0), expected)
    assert torch.equal(cut_at_end(expected, 13, 0), expected)


def test_what_follows_the_first_end_token_is_no_target() -> None:
    trainer = small_trainer().eval()
    batch = RetrievedCaptions(Fixed(WORDS), FOUND).batch(0, 0)
    two = batch.token_ids.clone()
    two[:, :, 5:7] = torch.tensor([7, WORDS.eos_token_id])
    with torch.no_grad():
        first, second = (
            trainer(RetrievalBatch(batch.audio, ids, prompts=batch.prompts), torch.Generator())
            for ids in (batch.token_ids, two)
        )
    assert float(first["loss"]) == float(second["loss"])


# -- settings


def test_the_defaults_are_published() -> None:
    config = RecapConfig()
    assert (config.retrieved, config.search_width, config.longest_caption) == (3, 15, 50)
    assert (config.bottleneck, config.train_norms) == (4, False)
    assert not config.is_frozen
    assert RecapConfig(gpt2="openai-community/gpt2").is_frozen
    assert not RecapConfig(gpt2="openai-community/gpt2", train="all").is_frozen


def test_settings_that_make_no_sense() -> None:
    for name in ("bottleneck", "retrieved", "search_width", "longest_caption"):
        settings: dict[str, Any] = {name: 0}
        with pytest.raises(ConfigError, match=f"{name}=0: must be at least 1"):
            RecapConfig(**settings)
    with pytest.raises(ConfigError, match="train=cross_attention: a random GPT-2 would stay"):
        RecapConfig(train="cross_attention")
    with pytest.raises(ConfigError, match="train_norms: with train=all they are trained anyway"):
        RecapConfig(train_norms=True)


def test_prompts_must_fit_the_positions() -> None:
    config = RecapConfig(small=SMALL, retrieved=5)
    model = make_decoder(config, WORDS, 0)
    match = "retrieved=5: prompt and caption may have 278 tokens, but the network has 256 positions"
    with pytest.raises(ConfigError, match=match):
        build_recap_trainer(config, model, 3, max_length=12)


def test_norms_can_be_trained_too(tmp_path: Path) -> None:
    write_gpt2(tmp_path / "gpt2", positions=512)
    config = RecapConfig(gpt2=str(tmp_path / "gpt2"), train_norms=True)
    trainer = build_recap_trainer(config, make_decoder(config, WORDS, 0), 32, 12)
    trained = [name for name, p in trainer.named_parameters() if p.requires_grad]
    assert sum("ln_cross_attn" in name for name in trained) == 2 * 2
    assert len(trained) == 2 * (2 + 6)
