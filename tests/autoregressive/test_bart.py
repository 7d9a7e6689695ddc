"""BART as a network: the shift of its positions, published files, and a small one from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BartForConditionalGeneration, BartTokenizer

from dac_diffusion.autoregressive.bart import build_bart, is_shifted, shift_encoder_positions
from dac_diffusion.autoregressive.language_models import load_language_model
from dac_diffusion.autoregressive.network import encode_audio
from dac_diffusion.text.bert import as_caption_tokenizer
from dac_diffusion.text.tokenizer import decode_captions, encode_captions, train_tokenizer
from tests.autoregressive.test_code_embedding import codes, embedding
from tests.autoregressive.tiny_bart import (
    POSITIONS,
    WIDTH,
    change_settings,
    random_bart,
    write_bart,
)

CAPTIONS = ["a dog barks", "rain in the dark, and wind"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_bart(folder)
    return folder


# Positions


@torch.no_grad()
def published_encoding(
    network: BartForConditionalGeneration, embeddings: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """EnCLAP's encoder: no position for the vector, position i - 1 for slot i, then BART's layers.

    network: as it was before the shift; embeddings: (B, S, W), as the projection gives them.
    """
    encoder = network.model.encoder
    rows = encoder.embed_positions.weight
    positions = torch.stack(
        [torch.zeros(WIDTH), *(rows[2 + i] for i in range(embeddings.shape[1] - 1))]
    )
    hidden = encoder.layernorm_embedding(embeddings + positions)
    hole = torch.finfo(torch.float32).min
    bias = (1.0 - mask[:, None, None, :].float()) * hole  # (B, 1, 1, S)
    bias = bias.expand(-1, -1, mask.shape[1], -1)
    for layer in encoder.layers:
        output = layer(hidden, bias)
        hidden = output[0] if isinstance(output, tuple) else output  # by version of transformers
    return hidden


@pytest.mark.parametrize("length", [6, POSITIONS - 3])
def test_the_shifted_table_computes_the_published_layout(length: int) -> None:
    before, network = random_bart(30), random_bart(30)
    projection = embedding(max_codes=POSITIONS - 3)
    audio = codes([length, 4])
    embeddings, mask = projection(audio)
    assert embeddings.shape[1] == length + 3
    expected = published_encoding(before, embeddings, mask)
    stock = encode_audio(projection, network, audio).hidden
    shift_encoder_positions(network)
    found = encode_audio(projection, network, audio).hidden
    assert found is not None
    assert stock is not None
    for clip, count in enumerate((length + 3, 7)):
        torch.testing.assert_close(
            found[clip, :count], expected[clip, :count], atol=1e-5, rtol=1e-5
        )
    assert (stock - expected)[0].abs().max() > 0.01  # the comparison can fail


def test_only_the_encoders_positions_move() -> None:
    before, network = random_bart(30), random_bart(30)
    shift_encoder_positions(network)
    for (name, old), (_, new) in zip(
        before.named_parameters(), network.named_parameters(), strict=True
    ):
        if name == "model.encoder.embed_positions.weight":
            assert torch.equal(new[:2], old[:2])
            assert (new[2] == 0).all()
            assert torch.equal(new[3:], old[2:-1])
        else:
            assert torch.equal(new, old), name


def train_a_little(network: BartForConditionalGeneration) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        embeddings = torch.randn(2, 5, WIDTH)
        network.get_encoder()(inputs_embeds=embeddings).last_hidden_state.pow(3).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_vectors_position_stays_zero_and_is_not_shifted_twice(tmp_path: Path) -> None:
    network = random_bart(30)
    assert not is_shifted(network)
    shift_encoder_positions(network)
    first = network.model.encoder.embed_positions.weight[3].clone()
    train_a_little(network)
    table = network.model.encoder.embed_positions.weight
    assert (table[2] == 0).all()
    assert (table[3] != first).all()
    network.save_pretrained(tmp_path)
    loaded = BartForConditionalGeneration.from_pretrained(tmp_path)
    assert is_shifted(loaded)
    shift_encoder_positions(loaded)
    assert torch.equal(loaded.model.encoder.embed_positions.weight, table)
    train_a_little(loaded)
    assert (loaded.model.encoder.embed_positions.weight[2] == 0).all()


# Published files


def same_weights(one: BartForConditionalGeneration, other: BartForConditionalGeneration) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.mark.parametrize("with_head", [True, False])
def test_a_published_bart_is_loaded(tmp_path: Path, with_head: bool) -> None:
    network = write_bart(tmp_path, with_head)
    bart = load_language_model(tmp_path)
    assert same_weights(bart.network, network)
    assert not bart.network.training
    ids = torch.tensor([[0, 7, 9, 2]])
    with torch.no_grad():
        found, expected = (n(input_ids=ids).logits for n in (bart.network, network))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_names_and_types_of_older_files_are_understood(tmp_path: Path) -> None:
    network = write_bart(tmp_path, with_head=False)
    path = tmp_path / "model.safetensors"
    weights = {name: value.half() for name, value in load_file(path).items()}
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        weights[name] = weights["shared.weight"].clone()
    for name in ("encoder.version", "decoder.version"):
        weights[name] = torch.tensor([3.0])
    save_file(weights, path, {"format": "pt"})
    change_settings(tmp_path, dtype="float16")
    found = load_language_model(tmp_path).network
    assert found.dtype == torch.float32
    for name, value in network.half().float().state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_its_tokenizer_begins_and_ends_captions_as_bart_does(whole: Path) -> None:
    published, tokenizer = (
        BartTokenizer.from_pretrained(whole),
        load_language_model(whole).tokenizer,
    )
    ids = encode_captions(tokenizer, CAPTIONS, 40)
    expected = published(CAPTIONS, padding="max_length", max_length=40)["input_ids"]
    assert ids.tolist() == expected
    assert tokenizer.convert_ids_to_tokens(ids[0, :4].tolist()) == ["<s>", "a", "Ġdog", "Ġbark"]
    assert decode_captions(tokenizer, ids) == CAPTIONS


# From nothing


def sizes() -> dict[str, object]:
    return {
        "width": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "feed_forward": 24,
        "dropout": 0.0, "max_positions": 40,
    }  # fmt: skip


def test_a_small_bart_speaks_the_words_of_a_tokenizer(whole: Path) -> None:
    ours = train_tokenizer(CAPTIONS, 200)
    network = build_bart(ours, **sizes())
    config = network.config
    assert config.vocab_size == len(ours)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 3, 2)
    assert config.decoder_start_token_id == 3
    assert (config.encoder_layers, config.decoder_layers) == (1, 2)
    assert network.generation_config.forced_eos_token_id is None
    output = network(inputs_embeds=torch.randn(1, 40, 16), decoder_input_ids=torch.tensor([[3]]))
    assert output.logits.shape == (1, 1, len(ours))
    published = build_bart(load_language_model(whole).tokenizer, **sizes()).config
    assert (published.pad_token_id, published.bos_token_id, published.eos_token_id) == (1, 0, 2)
    assert published.decoder_start_token_id == 2  # <s> is in the captions


def test_a_small_bart_over_berts_words_starts_as_published_ones() -> None:
    from tokenizers import Tokenizer, models

    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}
    bert = as_caption_tokenizer(Tokenizer(models.WordPiece(words, unk_token="[UNK]")))
    config = build_bart(bert, **sizes()).config
    assert (config.bos_token_id, config.eos_token_id, config.decoder_start_token_id) == (2, 3, 3)
