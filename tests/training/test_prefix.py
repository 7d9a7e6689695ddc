"""Training of captioners with audio as a prefix, on tiny networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from prefix_parts import (
    GENERATOR,
    QFORMER,
    descend,
    feature_batch,
    make,
    waveform_batch,
)
from torch import Tensor

from dac_diffusion.autoregressive.low_rank import LowRankConfig, has_adapters
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training.caption_sources import CaptionBatch
from dac_diffusion.training.prefix import (
    PrefixConfig,
    PrefixTrainer,
    build_projection,
)
from tests.autoregressive.language_model_folders import write_folder


@torch.no_grad()
def loss_by_hand(trainer: PrefixTrainer, batch: CaptionBatch, pad: int, eos: int) -> float:
    """transformers' own loss of a decoder, one clip at a time, over the captions' tokens."""
    embed = trainer.network.get_input_embeddings()
    total, count = 0.0, 0
    audio, mask = trainer.projection(batch.audio)
    for row, ids in enumerate(batch.token_ids[:, 0]):
        caption = ids[: int((ids != pad).sum())]
        assert int(caption[-1]) == eos
        words = [torch.tensor(part) for part in (trainer.prompt.left, trainer.prompt.right)]
        prefix = torch.cat([embed(words[0]), audio[row][mask[row].bool()], embed(words[1])])
        labels = torch.cat([torch.full((len(prefix),), -100), caption])
        inputs = torch.cat([prefix, embed(caption)])
        loss = trainer.network(inputs_embeds=inputs[None], labels=labels[None]).loss
        total, count = total + float(loss) * len(caption), count + len(caption)
    return total / count


@pytest.mark.parametrize("prompt", ["report", "code"])
def test_the_loss_is_that_of_the_captions_tokens_alone(prompt: str) -> None:
    trainer, model = make(prompt=prompt)
    trainer.eval()
    batch = feature_batch(model)
    with torch.no_grad():
        outputs = trainer(batch, GENERATOR)
    tokenizer = model.tokenizer
    expected = loss_by_hand(trainer, batch, tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert float(outputs["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(outputs["cross_entropy"]) == pytest.approx(expected, rel=1e-5)
    assert trainer.prompt.left[0] == tokenizer.bos_token_id


def test_label_smoothing_is_in_the_loss_only() -> None:
    trainer, model = make(label_smoothing=0.2)
    plain, _ = make()
    with torch.no_grad():
        outputs = trainer.eval()(feature_batch(model), GENERATOR)
        expected = plain.eval()(feature_batch(model), GENERATOR)
    assert float(outputs["cross_entropy"]) == pytest.approx(float(expected["loss"]))
    assert float(outputs["loss"]) != pytest.approx(float(expected["loss"]))


def parameters(trainer: PrefixTrainer, trainable: bool = True) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in trainer.named_parameters() if p.requires_grad == trainable}


@pytest.mark.parametrize("language_model", ["llama", "bart"])
def test_small_language_models_learn_everything(language_model: str) -> None:
    trainer, model = make(language_model=language_model)
    assert not has_adapters(trainer)
    assert not parameters(trainer, trainable=False)
    losses = descend(trainer, feature_batch(model))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_published_language_models_learn_by_adapters(tmp_path: Path, kind: str) -> None:
    # Small frozen weights would keep the logits small, whatever the adapters learn.
    bart = {"init_std": 0.3, "dropout": 0.0, "max_position_embeddings": 128}
    write_folder(tmp_path, kind, **(bart if kind == "bart" else {"initializer_range": 0.5}))
    lora = LowRankConfig(rank=4, dropout=0.0)
    trainer, model = make(language_model=str(tmp_path), lora=lora)
    frozen = {n: p.clone() for n, p in parameters(trainer, trainable=False).items()}
    assert all(name.startswith("network.") for name in frozen)
    trainable = parameters(trainer)
    assert all(name.startswith("projection.") or "lora_" in name for name in trainable)
    losses = descend(trainer, feature_batch(model))
    assert losses[-1] < 0.7 * losses[0]
    after = parameters(trainer, trainable=False)
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items())


def test_all_of_a_published_language_model_may_learn(tmp_path: Path) -> None:
    write_folder(tmp_path, "gpt2", n_positions=256)  # which has no adapters
    trainer, model = make(language_model=str(tmp_path), train_language_model="all")
    assert not parameters(trainer, trainable=False)
    losses = descend(trainer, feature_batch(model), steps=20)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("kind", "positions", "takes"),
    # 324 features of CED make 108 windows; the prompt has the start, 7 and 3 tokens.
    [("bart", 127, 128), ("gpt2", 126, 119), ("llama", 126, 119)],
)
def test_a_network_with_too_few_positions(
    tmp_path: Path, kind: str, positions: int, takes: int
) -> None:
    name = "n_positions" if kind == "gpt2" else "max_position_embeddings"
    settings = {"language_model": str(tmp_path), "train_language_model": "all"}
    write_folder(tmp_path, kind, **{name: positions})
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert str(caught.value) == (
        f"the network has {positions} positions, but audio takes up to {takes} and a caption 8; "
        "raise prefix.qformer.window, lower encoder.window_seconds, or take a language model with "
        "more (prefix.small.max_positions)"
    )
    write_folder(tmp_path, kind, **{name: positions + 1})
    trainer, model = make(**settings)
    audio = AudioFeatures(torch.randn(1, 324, 48), torch.ones(1, 324).bool(), torch.zeros(1, 48))
    ids = encode_captions(model.tokenizer, ["a dog barks " * 3], 8)
    assert torch.isfinite(trainer(CaptionBatch(audio, ids[:, None]), GENERATOR)["loss"])


def test_frozen_weights_in_half_precision(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    trainer, model = make(language_model=str(tmp_path), dtype="bfloat16")
    assert {p.dtype for p in parameters(trainer, trainable=False).values()} == {torch.bfloat16}
    assert {p.dtype for p in parameters(trainer).values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loss = trainer.train()(feature_batch(model), GENERATOR)["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    lora = LowRankConfig(rank=4, dropout=0.0)
    gradients = []
    for checkpointing in (False, True):
        settings = {"gradient_checkpointing": checkpointing, "lora": lora}
        trainer, model = make(language_model=str(tmp_path), **settings)
        trainer.train()(feature_batch(model), GENERATOR)["loss"].backward()
        assert trainer.network.is_gradient_checkpointing == checkpointing
        gradients.append([p.grad for p in trainer.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-5, atol=1e-7)


def test_the_encoder_learns_by_adapters_from_recordings() -> None:
    encoder = random_encoder("ced")
    trainer, model = make(encoder, train_encoder=True, lora=LowRankConfig(rank=2, dropout=0.0))
    adapters = [name for name in parameters(trainer) if name.startswith("encoder.")]
    assert len(adapters) == 2 * 2 * 2  # two blocks, query and value, A and B
    before = {n: p.clone() for n, p in trainer.encoder.state_dict().items()}  # type: ignore[union-attr]
    losses = descend(trainer, waveform_batch(model), steps=3)
    assert losses[-1] < losses[0]
    after = trainer.encoder.state_dict()  # type: ignore[union-attr]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name.removeprefix("encoder.") for name in adapters}


def test_recordings_are_heard_as_by_the_encoder() -> None:
    encoder = random_encoder("ced")
    trainer, model = make(encoder, train_encoder=True)
    batch = waveform_batch(model)
    audio = batch.audio
    with torch.no_grad():
        heard = trainer.eval()(batch, GENERATOR)["loss"]
        features = random_encoder("ced")(audio.waveform, audio.num_samples)
        expected = trainer(CaptionBatch(features, batch.token_ids), GENERATOR)["loss"]
    torch.testing.assert_close(heard, expected, rtol=1e-5, atol=1e-5)


def test_the_statistics_of_the_input_never_move() -> None:
    encoder = ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2)
    trainer, model = make(encoder, train_encoder=True)
    before = {n: b.clone() for n, b in encoder.named_buffers() if "running" in n}
    assert before
    descend(trainer, waveform_batch(model), steps=2)
    assert all(torch.equal(dict(encoder.named_buffers())[n], b) for n, b in before.items())


def test_recordings_without_an_encoder() -> None:
    trainer, model = make()
    with pytest.raises(ConfigError) as caught:
        trainer(waveform_batch(model), GENERATOR)
    assert str(caught.value) == "train_encoder=false: batches must hold features, not recordings"


def test_bands_are_those_of_the_encoder() -> None:
    ced = random_encoder("ced")
    settings = build_projection(QFORMER, ced, 16).config
    assert (settings.bands, settings.time_patches, settings.audio_dim) == (4, 63, 48)
    ced.frequency_pooling = "mean"
    assert build_projection(QFORMER, ced, 16).config.bands == 1
    small = ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2)
    settings = build_projection(QFORMER, small, 16).config
    assert (settings.bands, settings.audio_dim, settings.width) == (1, 32, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "paper"}, "prompt='paper': must be one of report, code, or a text with "
                              "<AcousticTokens> once"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: must be from 0 to below 1"),
        ({"dtype": "bfloat16"}, "dtype=bfloat16: weights that are trained must be float32; set it "
                                "so, or train_language_model=lora"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PrefixConfig(**settings)
    assert str(caught.value) == message
