"""Loading a BERT in its published layout, and cutting its vocabulary."""

from pathlib import Path

import pytest
import torch

from dac_diffusion.errors import CheckpointError
from dac_diffusion.text.bert import keep_used_tokens, load_bert, random_bert
from dac_diffusion.text.split_bert_space import lower_layers
from dac_diffusion.text.tokenizer import (
    decode_captions,
    encode_captions,
    first_word_position,
    train_tokenizer,
)
from tests.text.tiny_masked_bert import WORDS, write_masked_bert

CAPTIONS = ["a dog barks", "rain falls, and then wind blows.", "a dog don't bark"]


def test_captions_are_framed_by_cls_and_sep_and_read_back(tmp_path: Path) -> None:
    write_masked_bert(tmp_path)
    tokenizer = load_bert(tmp_path).tokenizer
    ids = encode_captions(tokenizer, CAPTIONS, 12)
    assert [WORDS[i] for i in ids[0, :6]] == ["[CLS]", "a", "dog", "barks", "[SEP]", "[PAD]"]
    assert decode_captions(tokenizer, ids) == CAPTIONS
    assert first_word_position(tokenizer) == 1
    cut = encode_captions(tokenizer, CAPTIONS, 5)[1]
    assert [WORDS[i] for i in cut] == ["[CLS]", "rain", "falls", ",", "[SEP]"]


def test_network_and_head_are_the_published_ones(tmp_path: Path) -> None:
    model = write_masked_bert(tmp_path)
    bert = load_bert(tmp_path)
    assert bert.head is not None
    ids = encode_captions(bert.tokenizer, CAPTIONS, 12)
    with torch.no_grad():
        expected = model(ids, attention_mask=torch.ones_like(ids)).logits
        logits = bert.head(lower_layers(bert.model, ids, None, 4))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in bert.model.parameters())


def test_a_bert_without_a_head_has_none(tmp_path: Path) -> None:
    write_masked_bert(tmp_path, with_head=False)
    assert load_bert(tmp_path).head is None


def test_only_used_tokens_are_kept_and_nothing_else_changes(tmp_path: Path) -> None:
    write_masked_bert(tmp_path)
    whole = load_bert(tmp_path)
    part = keep_used_tokens(whole, ["a dog barks", "rain falls"])
    kept = part.tokenizer.convert_ids_to_tokens(list(range(len(part.tokenizer))))
    single = {word for word in WORDS if len(word.removeprefix("##")) == 1}
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert set(kept) == {"dog", "barks", "rain", "falls"} | special | single
    texts = ["a dog barks", "rain falls, a dog"]
    before, after = (encode_captions(b.tokenizer, texts, 8) for b in (whole, part))
    assert decode_captions(part.tokenizer, after) == texts
    torch.testing.assert_close(
        lower_layers(part.model, after, None, 3), lower_layers(whole.model, before, None, 3)
    )
    assert whole.head is not None
    assert part.head is not None
    hidden = torch.randn(1, 3, 16)
    places = whole.tokenizer.convert_tokens_to_ids(kept)
    torch.testing.assert_close(part.head(hidden), whole.head(hidden)[..., places])


def test_a_random_bert_speaks_the_words_it_is_given() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 200)
    bert = random_bert(tokenizer, width=32, layers=2)
    ids = encode_captions(bert.tokenizer, CAPTIONS, 12)
    assert lower_layers(bert.model, ids, None, 2).shape == (3, 12, 32)


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors", "config.json"])
def test_an_incomplete_folder_is_named(tmp_path: Path, missing: str) -> None:
    write_masked_bert(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_bert(tmp_path)


def test_a_damaged_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    write_masked_bert(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read as a BERT"):
        load_bert(tmp_path)


def test_another_kind_of_model_is_no_bert(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    write_masked_bert(tmp_path)
    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="BERT"):
        load_bert(tmp_path)


def test_what_stands_in_the_place_of_cls_is_no_word(tmp_path: Path) -> None:
    write_masked_bert(tmp_path)
    tokenizer = load_bert(tmp_path).tokenizer
    ids = encode_captions(tokenizer, ["a dog barks"] * 3, 8)
    for row, token in enumerate(("[PAD]", "[SEP]", "rain")):
        ids[row, 0] = tokenizer.convert_tokens_to_ids(token)
    ids[1, 2] = tokenizer.convert_tokens_to_ids("[MASK]")
    assert decode_captions(tokenizer, ids) == ["a dog barks", "a barks", "a dog barks"]
