"""A small caption vocabulary: train it, encode captions with it, and read captions back.

The tokenizer is a transformers.PreTrainedTokenizerFast over one tokenizer.json, so that
`save_pretrained`, `from_pretrained` and diffusers pipelines carry it without code of ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD_ID, UNK_ID, EOS_ID, BOS_ID = 0, 1, 2, 3
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[EOS]", "[BOS]")
LETTERS_AND_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"
LONGEST_ENDING = 6
SHARE_OF_ENDINGS = 0.1
ATTACHED = frozenset(",.;:!?")  # punctuation that follows a word without a space


def train_tokenizer(captions: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Build a WordPiece tokenizer of at most `vocabulary_size` tokens from captions.

    Captions are lower-cased; commas and apostrophes inside words are kept, "'s" is a word of its
    own, and other punctuation is dropped. The result depends on the captions' words and their
    counts only, not on the order of the captions. Raises ConfigError where `vocabulary_size` has
    no room for the special tokens and the single characters.
    """
    # Words are counted by the tokenizer's own splitting, so that both always agree.
    splitter = _tokenizer_from_vocabulary(list(SPECIAL_TOKENS))
    word_counts: Counter[str] = Counter()
    for caption in captions:
        text = splitter.normalizer.normalize_str(caption)
        word_counts.update(word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(text))
    return _wrap(_tokenizer_from_vocabulary(_choose_vocabulary(word_counts, vocabulary_size)))


def encode_captions(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int
) -> Tensor:
    """Token ids (N, length): the caption, [EOS], then [PAD]; long captions are cut before [EOS].

    A tokenizer with a [CLS] token, such as BERT's, puts it first.
    """
    token_ids = torch.full((len(texts), length), tokenizer.pad_token_id, dtype=torch.long)
    start = [] if tokenizer.cls_token_id is None else [tokenizer.cls_token_id]
    if texts:
        # Padding and cutting in the tokenizer would stay in its state, and in a saved tokenizer.
        for row, ids in enumerate(tokenizer(list(texts), add_special_tokens=False)["input_ids"]):
            ids = [*[*start, *ids][: length - 1], tokenizer.eos_token_id]
            token_ids[row, : len(ids)] = torch.tensor(ids)
    return token_ids


def decode_captions(tokenizer: PreTrainedTokenizerFast, token_ids: Tensor) -> list[str]:
    """Captions of token ids (N, L), each cut at its first [EOS] or [PAD], without special tokens.

    Nothing else is repaired: repeated words stay visible. Where captions begin with [CLS], that
    place holds no word, whatever a model has written there.
    """
    start = first_word_position(tokenizer)
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    special = set(tokenizer.all_special_ids)
    captions = []
    for row in token_ids[:, start:].tolist():
        caption_ids = takewhile(lambda token_id: token_id not in ends, row)
        words = [token_id for token_id in caption_ids if token_id not in special]
        captions.append(_spell(tokenizer, words))
    return captions


def _spell(tokenizer: PreTrainedTokenizerFast, words: list[int]) -> str:
    """The text of word tokens: pieces by our own rule, BART's, GPT-2's and Llama's by theirs."""
    if type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece":
        return join_tokens(tokenizer.convert_ids_to_tokens(words))[0]
    text: str = tokenizer.decode(words, clean_up_tokenization_spaces=False)
    return text.strip()


def first_word_position(tokenizer: PreTrainedTokenizerFast) -> int:
    """Where a caption's first word stands: after [CLS], if the tokenizer has one."""
    return 0 if tokenizer.cls_token_id is None else 1


def join_tokens(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The text that tokens spell, and where each token lies in it: (start, end) in characters.

    "##" pieces continue the word before. Punctuation and apostrophes follow it without a space, and
    so does what comes after an apostrophe that is a token of its own ("don", "'", "t").
    """
    text = ""
    spans = []
    before = ""
    for token in tokens:
        attached = token.startswith(("##", "'")) or token in ATTACHED or before == "'"
        if text and not attached:
            text += " "
        start = len(text)
        text += token.removeprefix("##")
        spans.append((start, len(text)))
        before = token
    return text, spans


def normalise_caption(text: str) -> str:
    """Lower-case words with single spaces and no punctuation: equal where captions read alike."""
    plain = unicodedata.normalize("NFKD", text).lower()
    without_marks = "".join(c for c in plain if not unicodedata.combining(c) and c not in "'\u2019")
    return " ".join(re.findall(r"[^\W_]+", without_marks))


def _choose_vocabulary(word_counts: Counter[str], vocabulary_size: int) -> list[str]:
    """Special tokens, characters, the most frequent words, and endings for the words left out.

    The WordPiece trainer of `tokenizers` breaks ties by hash order and so differs between runs.
    Captions need little of it: nearly every word gets a token, a rare word starts with some
    shorter word, and only its ending has to be spelled.
    """
    characters = [*LETTERS_AND_DIGITS, ",", "'", *(f"##{c}" for c in LETTERS_AND_DIGITS)]
    vocabulary = [*SPECIAL_TOKENS, *characters]
    room = vocabulary_size - len(vocabulary)
    if room < 0:
        raise ConfigError(
            f"vocabulary_size={vocabulary_size} is too small: the special tokens and single "
            f"characters alone need {len(vocabulary)}"
        )
    words = [word for word in _most_frequent(word_counts) if len(word) > 1]
    if len(words) <= room:
        return vocabulary + words
    endings: Counter[str] = Counter()
    for word in words:
        for size in range(2, min(LONGEST_ENDING, len(word) - 1) + 1):
            endings[f"##{word[-size:]}"] += size - 1  # the characters it saves
    num_endings = min(int(SHARE_OF_ENDINGS * room), len(endings))
    return vocabulary + words[: room - num_endings] + _most_frequent(endings)[:num_endings]


def _most_frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))


def _tokenizer_from_vocabulary(vocabulary: Sequence[str]) -> Tokenizer:
    """A tokenizer with our text rules over a list of tokens, ids in the order of the list."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    ids = {token: token_id for token_id, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=SPECIAL_TOKENS[UNK_ID]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace("\u2019", "'"),
            normalizers.Replace(Regex(f"[^{LETTERS_AND_DIGITS}', ]"), " "),
            # Quotation marks go, apostrophes between letters stay.
            normalizers.Replace(Regex("(?<![a-z0-9])'|'(?![a-z0-9])"), " "),
        ]
    )
    words = Regex("'[a-z0-9]+|[a-z0-9]+|,")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, behavior="removed", invert=True)
    # The same rule as join_tokens, for those who call tokenizer.decode.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Replace(" ,", ","),
            decoders.Replace(" '", "'"),
        ]
    )
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    pad, unk, eos, bos = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        eos_token=eos,
        bos_token=bos,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
    )
