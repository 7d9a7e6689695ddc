"""RECAP's prompt, in GPT-2's words and in the project's own tokens."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.autoregressive.retrieval_prompt import (
    longest_prompt,
    prompt_ids,
    prompts_of,
    published_prompt,
    retrieve_prompts,
    spells_published_prompt,
)
from dac_diffusion.errors import ConfigError
from dac_diffusion.retrieval.datastore import CaptionDatastore
from dac_diffusion.text.tokenizer import BOS_ID, EOS_ID, UNK_ID, encode_captions, train_tokenizer
from tests.autoregressive.tiny_gpt2 import caption_tokenizer

GPT2 = caption_tokenizer()
OWN = train_tokenizer(["a dog barks, then rain falls", "wind blows"], 200)


def own_ids(text: str) -> list[int]:
    return OWN.convert_tokens_to_ids(text.split())


def test_the_published_prompt_by_hand() -> None:
    assert published_prompt(["A dog barks.", "Rain falls.", "Wind blows."]) == (
        "Similar audios sound like\n\nA dog barks.\n\nRain falls.\n\nWind blows.\n\n"
        "This audio sounds like "
    )
    assert published_prompt(["A dog \n barks", "rain. . ..", " Rain falls. Wind"]) == (
        "Similar audios sound like\n\nA dog barks.\n\nrain.\n\nRain falls. Wind.\n\n"
        "This audio sounds like "
    )


def test_with_fewer_captions_there_are_fewer_and_without_any_only_the_request() -> None:
    assert published_prompt(["rain"]) == (
        "Similar audios sound like\n\nrain.\n\nThis audio sounds like "
    )
    assert published_prompt([]) == "This audio sounds like "
    assert GPT2.decode(prompt_ids(GPT2, [])) == "This audio sounds like "


def test_gpt2_spells_it() -> None:
    assert spells_published_prompt(GPT2)
    for captions in (["A dog barks!"], ["Rain", "wind. Birds", "ça \u96e8 'tis ..."]):
        text = published_prompt([caption.rstrip(". ") for caption in captions])
        ids = prompt_ids(GPT2, captions)
        assert GPT2.decode(ids) == text
        assert ids == GPT2(text, add_special_tokens=False)["input_ids"]
        assert GPT2.convert_ids_to_tokens(ids[-1:]) == ["\u0120"]  # the space at the end
        endings = text.count(".")
        assert ids.count(GPT2.eos_token_id) == endings == ids.count(13)


def test_a_caption_after_the_prompt_ends_in_one_period() -> None:
    (ids,) = encode_captions(GPT2, ["A dog barks"], 12).tolist()
    assert GPT2.decode(ids).rstrip("!") == "A dog barks."


def test_the_tokens_of_our_own_by_hand() -> None:
    assert not spells_published_prompt(OWN)
    assert prompt_ids(OWN, ["A dog barks, then RAIN falls.", "wind"]) == [
        *own_ids("a dog barks , then rain falls"),
        EOS_ID,
        *own_ids("wind"),
        EOS_ID,
        BOS_ID,
    ]
    assert prompt_ids(OWN, []) == [BOS_ID]
    assert UNK_ID not in prompt_ids(OWN, ["rain\n\nwind"])


@pytest.mark.parametrize("tokenizer", [GPT2, OWN], ids=["GPT-2", "own"])
def test_long_captions_are_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    long = "dog barks wind blows. rain falls dog barks wind blows rain falls"
    ids = tokenizer(long, add_special_tokens=False)["input_ids"]
    for longest in range(1, len(ids) + 1):
        first = tokenizer.decode(ids[:longest]).rstrip(". ")
        cut = prompt_ids(tokenizer, [long, long], longest)
        assert cut == prompt_ids(tokenizer, [first, first], 999)
        assert len(prompt_ids(tokenizer, [long] * 3, longest)) < longest_prompt(
            tokenizer, 3, longest
        )
    assert prompt_ids(tokenizer, [long], len(ids)) == prompt_ids(tokenizer, [long], 500)


def test_a_tokenizer_that_can_do_neither() -> None:
    bert = PreTrainedTokenizerFast(
        tokenizer_object=OWN.backend_tokenizer, pad_token="[PAD]", eos_token="[EOS]"
    )
    with pytest.raises(ConfigError, match="no line breaks for RECAP's prompt, and no start token"):
        prompt_ids(bert, ["rain"])


def test_prompts_stand_to_the_left_of_the_audio() -> None:
    prompts = prompts_of(OWN, [["rain", "wind"], []])
    assert prompts.left == [prompt_ids(OWN, ["rain", "wind"]), [BOS_ID]]
    assert prompts.right == [[], []]


def test_prompts_of_what_is_retrieved() -> None:
    store = CaptionDatastore.build(
        ["rain", "wind", "dog"], ["x", "y", "z"], torch.eye(3), "of this test"
    )
    vectors = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    prompts = retrieve_prompts(OWN, store, vectors, 2, exclude=["x", None])
    assert prompts.left == [prompt_ids(OWN, ["wind", "dog"]), prompt_ids(OWN, ["dog", "wind"])]
    own = retrieve_prompts(OWN, store, vectors, 5, exclude=["x", "z"])
    assert own.left == [prompt_ids(OWN, ["wind", "dog"]), prompt_ids(OWN, ["wind", "rain"])]
    with_one = CaptionDatastore.build(["rain"], ["x"], torch.eye(3)[:1], "of this test")
    assert retrieve_prompts(OWN, with_one, vectors, exclude=["x", "x"]).left == [[BOS_ID]] * 2
