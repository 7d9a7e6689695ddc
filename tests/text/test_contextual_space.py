"""Arm (b): alignment of tokens with the sentence encoder's pieces, statistics, and loading."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.errors import CheckpointError, ConfigError, MissingExtraError
from dac_diffusion.text import sentence_encoder as sentence_encoder_module
from dac_diffusion.text.contextual_space import (
    ContextualSpace,
    add_decoder_noise,
    load_sentence_encoder,
)
from dac_diffusion.text.latent_space import position_weights
from dac_diffusion.text.sentence_encoder import SentenceEncoder
from dac_diffusion.text.tokenizer import EOS_ID, PAD_ID, encode_captions, train_tokenizer

CAPTIONS = ["a woman's dog barks", "a dog barks", "rain", "a woman barks, a dog, rain, rain"]
LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(CAPTIONS, 200)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder like MiniLM, but tiny and random, in MiniLM's file layout."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "wo", "##man", "'", "s", "dog", "barks", ","]
    pieces = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    pieces.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)  # the pooler is in the file, as in MiniLM's
    config.to_json_file(folder / "config.json")
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> SentenceEncoder:
    return load_sentence_encoder(encoder_folder)


def make_space(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder | None = None
) -> ContextualSpace:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        space = ContextualSpace(
            len(tokenizer), latent_dim=16, max_length=LENGTH, decoder_width=16, decoder_heads=2
        )
    if encoder is not None:
        space.attach_encoder(encoder, tokenizer)
    return space.eval()


def test_latents_follow_the_characters(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    token_ids = encode_captions(tokenizer, CAPTIONS, LENGTH)
    tokens = tokenizer.convert_ids_to_tokens(token_ids[0].tolist())
    assert tokens[:6] == ["a", "woman", "'s", "dog", "barks", "[EOS]"]
    # The encoder's pieces: [CLS] a wo ##man ' s dog barks [SEP]
    pieces = torch.tensor([[2, 4, 5, 6, 7, 8, 9, 10, 3]])
    with torch.no_grad():
        hidden = encoder.model(input_ids=pieces).last_hidden_state[0]
    expected = torch.stack(
        [
            hidden[1],
            (hidden[2] + hidden[3]) / 2,
            (hidden[4] + hidden[5]) / 2,
            hidden[6],
            hidden[7],
            hidden[8],
        ]
    )
    latents = space.encode(token_ids)
    torch.testing.assert_close(latents[0, :6], expected, rtol=1e-4, atol=1e-4)


def test_our_pieces_share_a_longer_piece_of_the_encoder(encoder: SentenceEncoder) -> None:
    spelled = train_tokenizer([], 78)  # single characters only
    token_ids = encode_captions(spelled, ["a dog"], 6)
    assert spelled.convert_ids_to_tokens(token_ids[0].tolist())[:4] == ["a", "d", "##o", "##g"]
    latents = make_space(spelled, encoder).encode(token_ids)[0]
    torch.testing.assert_close(latents[1], latents[2])
    torch.testing.assert_close(latents[1], latents[3])
    assert (latents[0] - latents[1]).abs().max() > 0.1


def test_padding_is_one_fixed_vector_of_unit_variance(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    space.fit_statistics(CAPTIONS)
    token_ids = encode_captions(tokenizer, [*CAPTIONS, ""], LENGTH)
    padding = space.encode(token_ids)[token_ids == PAD_ID]
    assert (padding == padding[0]).all()
    assert (padding.abs() == 1).all()
    assert torch.equal(padding[0], make_space(tokenizer).pad_latent)


def test_latents_of_a_caption_do_not_depend_on_its_batch(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    token_ids = encode_captions(tokenizer, CAPTIONS, LENGTH)
    together = space.encode(token_ids.view(2, 2, LENGTH))
    assert together.shape == (2, 2, LENGTH, 16)
    torch.testing.assert_close(together[1, 0], space.encode(token_ids[2]), rtol=1e-4, atol=1e-4)


def test_statistics_standardise(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    space.fit_statistics(iter(CAPTIONS), batch_size=3)
    token_ids = encode_captions(tokenizer, CAPTIONS, LENGTH)
    latents = space.encode(token_ids)[token_ids != PAD_ID]
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std(dim=0, correction=0), torch.ones(16), rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="at least one caption"):
        space.fit_statistics([])


def make_losses(
    space: ContextualSpace, token_ids: Tensor, output: Tensor, seed: int | None
) -> dict[str, Tensor]:
    clean = space.encode(token_ids)
    weights = position_weights(token_ids, PAD_ID, 0.5)
    prediction = space.predict(output, torch.zeros_like(output), torch.zeros(output.shape[:-2]))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return space.losses(prediction, token_ids, clean, weights, generator)


def test_losses_reach_the_right_parameters(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    token_ids = encode_captions(tokenizer, CAPTIONS, LENGTH).view(2, 2, LENGTH)
    output = (space.encode(token_ids) + 0.5).requires_grad_()
    losses = make_losses(space, token_ids, output, seed=0)
    assert losses.keys() == space.loss_weights.keys()
    assert all(loss.shape == (2, 2) for loss in losses.values())
    torch.testing.assert_close(losses["mse"], torch.full((2, 2), 0.25))
    head = space.decoder.to_logits.weight
    reached = {
        name: [
            gradient is not None
            for gradient in torch.autograd.grad(
                loss.sum(), [output, head], retain_graph=True, allow_unused=True
            )
        ]
        for name, loss in losses.items()
    }
    assert reached == {
        "mse": [True, False],
        "cross_entropy": [True, True],
        "decoder_cross_entropy": [False, True],
    }


def test_decoder_noise_comes_from_the_generator(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    token_ids = encode_captions(tokenizer, CAPTIONS, LENGTH)
    output = space.encode(token_ids)
    values = [
        make_losses(space, token_ids, output, seed)["decoder_cross_entropy"] for seed in (1, 1, 2)
    ]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    without_noise = make_losses(space, token_ids, output, None)
    torch.testing.assert_close(
        without_noise["decoder_cross_entropy"], without_noise["cross_entropy"]
    )


def test_decoder_noise_preserves_variance_and_stays_within_its_range() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(500, 6, 32, generator=generator)
    noisy = add_decoder_noise(clean, generator)
    assert abs(noisy.var().item() - 1) < 0.02
    alpha = (noisy * clean).sum(dim=(1, 2)) / clean.square().sum(dim=(1, 2))  # (500,)
    # At t = .15 alpha is .51; the estimate is off by about sigma / sqrt(6 * 32) = .06.
    assert alpha.min() > 0.3
    assert alpha.max() < 1.1
    assert (alpha > 0.9).any()
    assert (alpha < 0.6).any()


def test_short_training_teaches_the_decoder(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    space.fit_statistics(CAPTIONS)
    token_ids = encode_captions(tokenizer, CAPTIONS, LENGTH)
    clean = space.encode(token_ids)
    optimiser = torch.optim.AdamW(space.parameters(), lr=1e-2)
    for step in range(60):
        loss = make_losses(space, token_ids, clean, step)["decoder_cross_entropy"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    logits = space.predict(clean, clean, torch.zeros(4)).logits
    assert logits is not None
    right = logits.argmax(dim=-1) == token_ids
    assert right[token_ids == EOS_ID].all()
    assert right[token_ids == PAD_ID].all()
    assert right.float().mean() > 0.95


def test_autocast_keeps_logits_in_float32(tokenizer: PreTrainedTokenizerFast) -> None:
    space = make_space(tokenizer)
    output = torch.randn(2, LENGTH, 16, generator=torch.Generator().manual_seed(0))
    expected = space.predict(output, output, torch.zeros(2)).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = space.predict(output.bfloat16(), output, torch.zeros(2))
    assert prediction.logits is not None
    assert prediction.logits.dtype == prediction.latents.dtype == torch.float32
    torch.testing.assert_close(prediction.logits, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_space_predicts_without_the_encoder(
    tokenizer: PreTrainedTokenizerFast,
    encoder: SentenceEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
) -> None:
    space = make_space(tokenizer, encoder)
    space.fit_statistics(CAPTIONS)
    space.to(dtype).save_pretrained(tmp_path)
    (weights_file,) = tmp_path.glob("*.safetensors")
    names = {name.split(".")[0] for name in load_file(weights_file)}
    assert names == {"decoder", "mean", "std", "pad_latent"}

    monkeypatch.setattr(sentence_encoder_module, "find_spec", lambda name: None)
    loaded = ContextualSpace.from_pretrained(tmp_path, torch_dtype=dtype).eval()
    output = torch.randn(2, LENGTH, 16, generator=torch.Generator().manual_seed(0))
    expected = space.predict(output, output, torch.zeros(2)).logits
    result = loaded.predict(output, output, torch.zeros(2)).logits
    assert result is not None
    assert expected is not None
    assert torch.equal(result, expected)
    assert torch.equal(loaded.std, space.std)
    with pytest.raises(ConfigError, match="attach_encoder"):
        loaded.encode(torch.zeros(1, LENGTH, dtype=torch.long))
    with pytest.raises(MissingExtraError, match=r"dac-diffusion\[contextual\]"):
        load_sentence_encoder()


def test_copies_share_the_frozen_encoder(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = make_space(tokenizer, encoder)
    assert copy.deepcopy(space).sentence_encoder is encoder
    assert not any("encoder" in name for name, _ in space.named_parameters())


def test_attaching_an_encoder_of_another_width_is_an_error(
    tokenizer: PreTrainedTokenizerFast, encoder: SentenceEncoder
) -> None:
    space = ContextualSpace(len(tokenizer), latent_dim=32, decoder_width=16)
    with pytest.raises(ConfigError, match="latent_dim=32"):
        space.attach_encoder(encoder, tokenizer)


def test_incomplete_and_damaged_encoder_folders(encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        load_sentence_encoder(tmp_path)
    for file in encoder_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_sentence_encoder(tmp_path)


def test_minilm_from_the_installed_package() -> None:
    try:
        encoder = load_sentence_encoder()
    except MissingExtraError as error:
        pytest.skip(str(error))
    tokenizer = train_tokenizer(CAPTIONS, 200)
    space = ContextualSpace(len(tokenizer), decoder_width=16)
    space.attach_encoder(encoder, tokenizer)
    space.fit_statistics(CAPTIONS)
    token_ids = encode_captions(tokenizer, CAPTIONS, 24)
    latents = space.encode(token_ids)
    assert latents.shape == (4, 24, 384)
    words = latents[token_ids != PAD_ID]
    torch.testing.assert_close(words.mean(dim=0), torch.zeros(384), rtol=0, atol=1e-3)
    # A word keeps much of itself in another context: "dog" is nearest to "dog".
    dog_id = tokenizer.convert_tokens_to_ids("dog")
    first, second = latents[0][token_ids[0] == dog_id][0], latents[1]
    nearest = torch.cosine_similarity(first[None], second[:3]).argmax()
    assert token_ids[1, nearest] == dog_id
