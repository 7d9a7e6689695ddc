"""The paper's latent space: what is split comes together again, and its losses by hand."""

from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM

from dac_diffusion.errors import ConfigError
from dac_diffusion.text.bert import PretrainedBert, load_bert
from dac_diffusion.text.latent_space import Prediction, signal_and_noise
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.text.tokenizer import encode_captions
from tests.text.tiny_masked_bert import write_masked_bert

CAPTIONS = ["a dog barks", "rain falls, and then wind blows", "a dog barks and rain falls", "wind"]
LENGTH = 12


@pytest.fixture
def model(tmp_path: Path) -> BertForMaskedLM:
    return write_masked_bert(tmp_path)


@pytest.fixture
def bert(model: BertForMaskedLM, tmp_path: Path) -> PretrainedBert:
    return load_bert(tmp_path)


@pytest.mark.parametrize("split_layer", [0, 1, 2, 4])
@torch.no_grad()
def test_split_and_head_are_the_stock_model(
    model: BertForMaskedLM, bert: PretrainedBert, split_layer: int
) -> None:
    space = SplitBertSpace.from_bert(bert, split_layer)
    space.fit_statistics(CAPTIONS, LENGTH)
    ids = encode_captions(bert.tokenizer, CAPTIONS, LENGTH)
    logits = space.decode(space.encode(ids))
    expected = model(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_attending_to_padding_words_do_not_feel_it(bert: PretrainedBert) -> None:
    space = SplitBertSpace.from_bert(bert, 2, attend_to_padding=False)
    short, long = (encode_captions(bert.tokenizer, CAPTIONS[:1], n) for n in (6, 12))
    torch.testing.assert_close(space.encode(short)[:, :5], space.encode(long)[:, :5])
    apart = SplitBertSpace.from_bert(bert, 2)
    assert (apart.encode(short)[:, :5] - apart.encode(long)[:, :5]).abs().max() > 1e-2


@torch.no_grad()
def test_latents_are_standardised_padding_included(bert: PretrainedBert) -> None:
    space = SplitBertSpace.from_bert(bert, 2)
    space.fit_statistics(CAPTIONS, LENGTH, batch_size=3)
    latents = space.encode(encode_captions(bert.tokenizer, CAPTIONS, LENGTH)).flatten(0, 1)
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.std(dim=0, correction=0), torch.ones(16), atol=1e-4, rtol=0)


def test_saved_without_the_lower_layers_it_decodes_the_same(
    bert: PretrainedBert, tmp_path: Path
) -> None:
    space = SplitBertSpace.from_bert(bert, 2)
    space.fit_statistics(CAPTIONS, LENGTH)
    space.save_pretrained(tmp_path / "space")
    loaded = SplitBertSpace.from_pretrained(tmp_path / "space")
    latents = torch.randn(2, 3, LENGTH, 16)
    assert torch.equal(loaded.decode(latents), space.decode(latents))
    names = {name.split(".")[0] for name in loaded.state_dict()}
    assert names == {"upper", "extra", "head", "mean", "std"}
    ids = encode_captions(bert.tokenizer, CAPTIONS, LENGTH)
    with pytest.raises(ConfigError, match="loaded for captioning only"):
        loaded.encode(ids)
    loaded.attach_encoder(bert)
    assert torch.equal(loaded.encode(ids), space.encode(ids))


@pytest.mark.parametrize("kind", ["sample", "epsilon", "v_prediction"])
def test_a_perfect_output_of_any_kind_gives_the_clean_latents(
    bert: PretrainedBert, kind: str
) -> None:
    space = SplitBertSpace.from_bert(bert, 2, prediction_type=kind)  # type: ignore[arg-type]
    ids = encode_captions(bert.tokenizer, CAPTIONS, LENGTH).view(2, 2, LENGTH)
    clean = space.encode(ids)  # (2, 2, L, D)
    log_nsr = torch.tensor([[-2.0, 0.0], [1.0, 3.0]])
    alpha, sigma = (part[..., None, None] for part in signal_and_noise(log_nsr))
    noise = torch.randn(clean.shape)
    noisy = alpha * clean + sigma * noise
    right = {"sample": clean, "epsilon": noise, "v_prediction": alpha * noise - sigma * clean}[kind]
    exact = space.predict(right, noisy, log_nsr)
    torch.testing.assert_close(exact.latents, clean, atol=1e-3, rtol=1e-3)
    # The loss is measured on what the network puts out, whatever that is.
    wrong = right + 0.1 * torch.randn(clean.shape)
    losses = space.losses(space.predict(wrong, noisy, log_nsr), ids, clean, torch.ones(ids.shape))
    expected = (wrong - right).square().mean(dim=(-1, -2))
    torch.testing.assert_close(losses["mse"], expected, atol=1e-4, rtol=1e-3)


def test_the_three_losses_by_hand(bert: PretrainedBert) -> None:
    space = SplitBertSpace.from_bert(bert, 2)
    ids = encode_captions(bert.tokenizer, CAPTIONS[:1], 8)  # [CLS] a dog barks [SEP] and 3 [PAD]
    clean, logits = torch.zeros(1, 8, 16), torch.randn(1, 8, space.vocabulary_size)
    latents = torch.zeros(1, 8, 16)
    latents[0, 1], latents[0, 6] = 2.0, 4.0  # squared errors 4 on a word, 16 on a pad
    weights = torch.tensor([[1.0] * 5 + [0.5] * 3])
    losses = space.losses(Prediction(latents, logits), ids, clean, weights)
    assert losses["mse"].item() == pytest.approx((4 + 0.5 * 16) / 6.5)
    assert losses["valid_token"].item() == pytest.approx(4 / 5)
    by_position = -logits.log_softmax(-1).gather(-1, ids[..., None])[0, :, 0]
    expected = (by_position * weights[0]).sum() / 6.5
    assert losses["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert space.loss_weights == {"mse": 1.0, "cross_entropy": 0.2, "valid_token": 1.0}


def test_the_norm_of_ladic_is_not_squared(bert: PretrainedBert) -> None:
    space = SplitBertSpace.from_bert(bert, 2, distance="l2_norm")
    ids = encode_captions(bert.tokenizer, CAPTIONS[:1], 8)
    latents = torch.zeros(1, 8, 16)
    latents[0, 1] = 2.0  # norm 2 sqrt(16) = 8
    prediction = Prediction(latents, torch.zeros(1, 8, space.vocabulary_size))
    losses = space.losses(prediction, ids, torch.zeros(1, 8, 16), torch.ones(1, 8))
    assert losses["valid_token"].item() == pytest.approx(8 / 5, rel=1e-4)


def test_only_head_and_extra_layers_are_trained_and_targets_have_no_dropout(
    bert: PretrainedBert,
) -> None:
    space = SplitBertSpace.from_bert(bert, 2).train()
    trained = {name.split(".")[0] for name, p in space.named_parameters() if p.requires_grad}
    assert trained == {"extra", "head"}
    assert not space.upper.training
    ids = encode_captions(bert.tokenizer, CAPTIONS, LENGTH)
    assert torch.equal(space.encode(ids), space.encode(ids))
    assert torch.equal(space.decode(space.encode(ids)), space.decode(space.encode(ids)))
    every = SplitBertSpace.from_bert(bert, 2, train_upper=True).train()
    assert every.upper.training
    assert all(p.requires_grad for p in every.parameters())


def test_settings_that_make_no_sense(bert: PretrainedBert, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split_layer=5: this BERT has layers 0 to 4"):
        SplitBertSpace.from_bert(bert, 5)
    with pytest.raises(ConfigError, match="prediction_type='x0'"):
        SplitBertSpace.from_bert(bert, 2, prediction_type="x0")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="distance='l1'"):
        SplitBertSpace.from_bert(bert, 2, distance="l1")  # type: ignore[arg-type]
    write_masked_bert(tmp_path / "other", layers=2)
    other = load_bert(tmp_path / "other")
    other.model.config.vocab_size = 7
    with pytest.raises(ConfigError, match="name the same BERT for both"):
        SplitBertSpace.from_bert(bert, 2).attach_encoder(other)
    with pytest.raises(ConfigError, match="at least one caption"):
        SplitBertSpace.from_bert(bert, 2).fit_statistics([], LENGTH)
