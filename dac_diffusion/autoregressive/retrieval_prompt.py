"""RECAP's prompt: captions of similar recordings in front of the one to be written.

Ghosh et al., arXiv 2309.09836. For a tokenizer that can spell it, as GPT-2's, it is the published

    Similar audios sound like\\n\\n{c1}\\n\\n{c2}\\n\\n{c3}\\n\\nThis audio sounds like

with a space at its end. Each retrieved caption ends in one period, whatever it ended in, as all
do in the published data: the period ends a caption (EOS), so the language model sees how the
examples end. Where fewer captions were found, there are fewer; without any, only the last line is
left.

The project's own tokenizer drops line breaks and has no period, and the words around the captions
tell nothing to a network that is not pretrained. Its prompt is {c1}[EOS]{c2}[EOS]{c3}[EOS][BOS]:
again each example ends as a caption does, and [BOS] is where this recording's caption begins.
Without captions only [BOS] is left. Commas between captions would not do, as captions have commas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dac_diffusion.autoregressive.network import Prompts
from dac_diffusion.errors import ConfigError
from dac_diffusion.retrieval.datastore import CaptionDatastore

INTRODUCTION = "Similar audios sound like\n\n"
BETWEEN = "\n\n"
REQUEST = "This audio sounds like "
LONGEST_CAPTION = 50  # tokens; the published datastore has no longer ones


def published_prompt(captions: Sequence[str]) -> str:
    """The prompt in words, for captions with the nearest first; without any, the last line."""
    if not captions:
        return REQUEST
    sentences = [f"{without_period(caption)}." for caption in captions]
    return f"{INTRODUCTION}{BETWEEN.join(sentences)}{BETWEEN}{REQUEST}"


def without_period(caption: str) -> str:
    """A caption in one line without the periods at its end."""
    return " ".join(caption.split()).rstrip(". ")


def prompt_ids(
    tokenizer: Any, captions: Sequence[str], longest_caption: int = LONGEST_CAPTION
) -> list[int]:
    """The prompt in tokens, in the form that the tokenizer allows (see above); never empty.

    Captions of more than `longest_caption` tokens are cut. Raises ConfigError for a tokenizer that
    can neither spell the published prompt nor has a start token.
    """
    texts = [_cut(tokenizer, without_period(caption), longest_caption) for caption in captions]
    if spells_published_prompt(tokenizer):
        ids: list[int] = tokenizer(published_prompt(texts), add_special_tokens=False)["input_ids"]
        return ids
    if tokenizer.bos_token_id is None:
        raise ConfigError(
            "the tokenizer has no line breaks for RECAP's prompt, and no start token to do without "
            "them; use GPT-2's or the project's own"
        )
    ids = []
    if texts:
        for own in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            ids += [*own, tokenizer.eos_token_id]
    return [*ids, tokenizer.bos_token_id]


def longest_prompt(tokenizer: Any, retrieved: int, longest_caption: int = LONGEST_CAPTION) -> int:
    """More tokens than any prompt of so many retrieved captions has."""
    # Two more for each caption, for tokens that do not join across its ends.
    return len(prompt_ids(tokenizer, [""] * retrieved)) + retrieved * (longest_caption + 2)


def spells_published_prompt(tokenizer: Any) -> bool:
    """Whether a tokenizer gives the words, line breaks and spaces of the prompt back."""
    prompt = published_prompt(["A dog barks"])
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return bool(tokenizer.decode(ids, clean_up_tokenization_spaces=False) == prompt)


def retrieve_prompts(
    tokenizer: Any,
    datastore: CaptionDatastore,
    vectors: Tensor,
    retrieved: int = 3,
    search_width: int = 15,
    exclude: Sequence[str | None] | None = None,
    longest_caption: int = LONGEST_CAPTION,
) -> Prompts:
    """The prompts of B recordings by their vectors (B, E) in the datastore's space.

    retrieved, search_width, exclude: see CaptionDatastore.search, which raises DataError.
    """
    found = datastore.search(vectors, retrieved, exclude, search_width)
    return prompts_of(tokenizer, [result.captions for result in found], longest_caption)


def prompts_of(
    tokenizer: Any,
    captions: Sequence[Sequence[str]],
    longest_caption: int = LONGEST_CAPTION,
) -> Prompts:
    """The prompts of B recordings for which these captions were found."""
    left = [prompt_ids(tokenizer, own, longest_caption) for own in captions]
    return Prompts(left, [[] for _ in left])


def _cut(tokenizer: Any, text: str, longest: int) -> str:
    """The text of the first `longest` tokens, cut where the last of them ends."""
    pieces = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if len(pieces["input_ids"]) <= longest:
        return text
    return text[: pieces["offset_mapping"][longest - 1][1]].rstrip(". ")
