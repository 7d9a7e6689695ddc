"""The caption tokenizer: layout of ids, reproducibility, and captions surviving the round trip."""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dac_diffusion.errors import ConfigError
from dac_diffusion.text.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    UNK_ID,
    decode_captions,
    encode_captions,
    join_tokens,
    normalise_caption,
    train_tokenizer,
)

CAPTIONS = [
    "A dog barks twice, then rain falls on a roof.",
    "The dog's barking while a woman speaks",
    "Rain falls and thunder rumbles in the distance",
    "A woman speaks, followed by barking",
]
AUDIOCAPS = Path(__file__).parents[2] / "../shared/data/captions/audiocaps"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(CAPTIONS, 200)


def read_audiocaps(split: str) -> list[str]:
    file = AUDIOCAPS / f"{split}.csv"
    if not file.is_file():
        pytest.skip("the AudioCaps captions are not on this machine")
    with open(file, encoding="utf-8", newline="") as rows:
        return [row["caption"] for row in csv.DictReader(rows)]


def test_special_tokens_come_first(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens([PAD_ID, UNK_ID, EOS_ID, BOS_ID]) == list(SPECIAL_TOKENS)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (PAD_ID, EOS_ID)


def test_encoding_ends_with_eos_and_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode_captions(tokenizer, ["A dog barks", "", "rain " * 30], 8)
    words = tokenizer.convert_tokens_to_ids(["a", "dog", "barks"])
    assert ids.dtype == torch.long
    assert ids[0].tolist() == [*words, EOS_ID, PAD_ID, PAD_ID, PAD_ID, PAD_ID]
    assert ids[1].tolist() == [EOS_ID] + [PAD_ID] * 7
    assert ids[2].tolist() == [*tokenizer.convert_tokens_to_ids(["rain"] * 7), EOS_ID]
    assert encode_captions(tokenizer, [], 8).shape == (0, 8)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (CAPTIONS[0], "a dog barks twice, then rain falls on a roof"),
        (CAPTIONS[1], "the dog's barking while a woman speaks"),
        ("  A 'woman'   speaks; loudly! (outside)", "a woman speaks loudly outside"),
        ("Clip-clop ,then rain", "clip clop, then rain"),
        ("The dog\u2019s caf\u00e9 2 \u732b", "the dog's cafe 2"),
        ("", ""),
    ],
)
def test_round_trip(tokenizer: PreTrainedTokenizerFast, caption: str, expected: str) -> None:
    ids = encode_captions(tokenizer, [caption], 64)
    assert UNK_ID not in ids
    assert decode_captions(tokenizer, ids) == [expected]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == expected


def test_decoding_stops_at_eos_or_pad_and_skips_special(tokenizer: PreTrainedTokenizerFast) -> None:
    dog, rain = tokenizer.convert_tokens_to_ids(["dog", "rain"])
    ids = torch.tensor(
        [
            [dog, dog, EOS_ID, rain],
            [dog, PAD_ID, rain, EOS_ID],
            [BOS_ID, dog, UNK_ID, rain],
            [EOS_ID, dog, dog, dog],
        ]
    )
    assert decode_captions(tokenizer, ids) == ["dog dog", "dog", "dog rain", ""]


def test_join_tokens_spans_lie_on_the_text() -> None:
    text, spans = join_tokens(["##ing", "dog", "'s", "bark", "##ing", ",", "loud"])
    assert text == "ing dog's barking, loud"
    pieces = [text[start:end] for start, end in spans]
    assert pieces == ["ing", "dog", "'s", "bark", "ing", ",", "loud"]


def test_training_does_not_depend_on_the_order_of_captions(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    shuffled = CAPTIONS * 2
    random.Random(1).shuffle(shuffled)
    again = train_tokenizer(shuffled, 200)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_rare_words_are_spelled_where_the_vocabulary_is_small() -> None:
    verbs = ["walk", "bark", "knock", "hiss", "talk", "crack", "clink", "whirr", "bleat", "squeak"]
    captions = [f"{verb}ing {verb}ed" for verb in verbs]  # 20 words
    tokenizer = train_tokenizer(captions, 78 + 10)
    assert len(tokenizer) == 88
    ids = encode_captions(tokenizer, captions, 32)
    assert UNK_ID not in ids
    assert decode_captions(tokenizer, ids) == captions
    assert "##king" in tokenizer.get_vocab()  # the ending that spares most characters


def test_too_small_a_vocabulary_is_an_error() -> None:
    with pytest.raises(ConfigError, match="vocabulary_size=50 is too small"):
        train_tokenizer(CAPTIONS, 50)


def test_save_and_load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert torch.equal(
        encode_captions(loaded, CAPTIONS, 16), encode_captions(tokenizer, CAPTIONS, 16)
    )
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["model"]["type"] == "WordPiece"
    assert saved["padding"] is None
    assert saved["truncation"] is None


class TokenizerPipeline(DiffusionPipeline):
    """A pipeline with nothing but a tokenizer in it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.register_modules(tokenizer=tokenizer)


def test_diffusers_pipelines_carry_it(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    TokenizerPipeline(tokenizer).save_pretrained(tmp_path)
    loaded = TokenizerPipeline.from_pretrained(tmp_path, local_files_only=True).tokenizer
    assert torch.equal(
        encode_captions(loaded, CAPTIONS, 16), encode_captions(tokenizer, CAPTIONS, 16)
    )


def test_normalise_caption() -> None:
    assert (
        normalise_caption("  A Dog's bark, far-away...  Caf\u00e9! ") == "a dogs bark far away cafe"
    )
    assert normalise_caption("a dog barks.") == normalise_caption("A dog , barks")
    assert normalise_caption("?!") == ""


def test_most_audiocaps_words_are_one_token() -> None:
    tokenizer = train_tokenizer(read_audiocaps("train"), 5000)
    vocabulary = tokenizer.get_vocab()
    assert len(tokenizer) <= 5000
    for split in ("train", "test"):
        text = " ".join(read_audiocaps(split)).lower().replace("\u2019", "'")
        counts = Counter(re.findall(r"[a-z0-9]+|'[a-z]+", text))
        one_token = [word for word in counts if word in vocabulary]
        occurrences = sum(counts[word] for word in one_token) / counts.total()
        types = len(one_token) / len(counts)
        print(f"{split}: {occurrences:.2%} of word occurrences, {types:.2%} of distinct words")
        assert occurrences >= 0.95
        assert types >= 0.9


def test_captions_of_a_byte_level_tokenizer_keep_their_spelling() -> None:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CAPTIONS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", pad_token="<pad>", eos_token="</s>"
    )
    ids = encode_captions(tokenizer, CAPTIONS, 40)
    assert ids[0, 0] == tokenizer.cls_token_id
    assert decode_captions(tokenizer, ids) == CAPTIONS
