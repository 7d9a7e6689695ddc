"""Prompts as texts and as tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from dac_diffusion.autoregressive.language_models import load_language_model
from dac_diffusion.autoregressive.network import Prompts
from dac_diffusion.autoregressive.prompts import PromptIds, encode_prompt, split_prompt
from dac_diffusion.errors import ConfigError
from tests.autoregressive.language_model_folders import write_folder


def test_the_published_prompts() -> None:
    assert split_prompt("report") == ("Describe the detail of this audio: ", " \n - \n Detailed:")
    assert split_prompt("code") == ("Describe the detail of this audio:", "\n---\nDetailed: ")
    assert split_prompt("hear <AcousticTokens>") == ("hear ", "")


@pytest.mark.parametrize("prompt", ["paper", "", "<AcousticTokens> or <AcousticTokens>"])
def test_other_prompts_must_say_where_the_audio_stands(prompt: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_prompt(prompt)
    assert str(caught.value) == (
        f"prompt={prompt!r}: must be one of report, code, or a text with <AcousticTokens> once"
    )


def test_in_front_of_a_decoder_stands_its_start_token(tmp_path: Path) -> None:
    write_folder(tmp_path, "llama")
    model = load_language_model(tmp_path)
    prompt = encode_prompt(
        "describe this <AcousticTokens> detailed", model.tokenizer, model.network
    )
    assert prompt == PromptIds(left=(1, 8, 9), right=(11,))


def test_the_input_of_an_encoder_ends_with_its_end_token(tmp_path: Path) -> None:
    write_folder(tmp_path, "bart")
    model = load_language_model(tmp_path)
    prompt = encode_prompt(
        "describe this <AcousticTokens> detailed", model.tokenizer, model.network
    )
    assert prompt == PromptIds(left=(0, 10, 11), right=(13, 2))


def test_every_clip_has_the_same() -> None:
    prompts = PromptIds((1, 2), (3,)).repeat(2)
    assert prompts == Prompts(left=[[1, 2], [1, 2]], right=[[3], [3]])
