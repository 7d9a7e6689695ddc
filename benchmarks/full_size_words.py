"""Tokenizers with as many tokens as the published ones, and captions for a datastore.

The published ones are downloads, and speed does not depend on which words they know. What it does
depend on is kept: the number of tokens, the special tokens and their ids, and how many tokens the
systems' prompts and the retrieved captions have.
"""

from __future__ import annotations

import string
from itertools import product
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dac_diffusion.autoregressive.prompts import PROMPTS, split_prompt
from dac_diffusion.autoregressive.retrieval_prompt import BETWEEN, INTRODUCTION, REQUEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from dac_diffusion.retrieval.datastore import CaptionDatastore

Kind = Literal["bart", "gpt2", "llama"]
WORDS_PER_CAPTION = 10  # about what AudioCaps' captions have
LETTERS_PER_WORD = 4
SPACE = "Ġ"  # how byte-level tokenizers spell a space
# Special tokens in front of all others and behind them, at the ids that the published ones have.
AROUND: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bart": (("<s>", "<pad>", "</s>", "<unk>"), ("<mask>",)),
    "gpt2": ((), ("<|endoftext|>",)),
    "llama": (("<unk>", "<s>", "</s>"), ()),
}
# BART's "<s>" begins every caption; "!" and "." are RECAP's choice; Llama has no padding.
SPECIAL: dict[Kind, dict[str, str]] = {
    "bart": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
             "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"},
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": ".", "pad_token": "!"},
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"},
}  # fmt: skip


def make_byte_level_tokenizer(kind: Kind, size: int) -> PreTrainedTokenizerFast:
    """Special tokens, single bytes, the words of all prompts, and `size` tokens in all.

    What is left is filled with words of four letters, which begin with a space.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    known = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    for text in _prompt_texts():
        known += [piece for piece, _ in splitter.pre_tokenize_str(text)]
    first, last = AROUND[kind]
    known = [*first, *dict.fromkeys(known)]
    words = (SPACE + word for word in _words(size))
    tokens = [*known, *list(words)[: size - len(known) - len(last)], *last]
    ids = {token: number for number, token in enumerate(tokens)}
    # A word that is a token is one; any other is spelled byte by byte.
    backend = Tokenizer(models.BPE(ids, merges=[], ignore_merges=True))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
        **SPECIAL[kind],
    )


def make_datastore(count: int, vector_size: int, seed: int) -> CaptionDatastore:
    """Captions of words that mean nothing, with random unit vectors, in a faiss index."""
    from dac_diffusion.retrieval.datastore import CaptionDatastore

    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, vector_size, generator=generator)  # (N, E)
    captions = random_captions(count, generator)
    names = [f"clip {number}" for number in range(count)]
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return CaptionDatastore.build(captions, names, vectors, "random")


def random_captions(count: int, generator: torch.Generator) -> list[str]:
    """ "A" and ten words each, which are tokens of every vocabulary with room for them."""
    words = _words(500)
    drawn: Tensor = torch.randint(len(words), (count, WORDS_PER_CAPTION), generator=generator)
    return [" ".join(["A", *(words[number] for number in row)]) for row in drawn.tolist()]


def _prompt_texts() -> list[str]:
    sides = [side for prompt in PROMPTS for side in split_prompt(prompt)]
    return [INTRODUCTION, BETWEEN, REQUEST, *sides]


def _words(count: int) -> list[str]:
    """Different words of consonants, so that none is an English one."""
    consonants = [letter for letter in string.ascii_lowercase if letter not in "aeiou"]
    letters = product(consonants, repeat=LETTERS_PER_WORD)
    return ["".join(each) for each, _ in zip(letters, range(count), strict=False)]
