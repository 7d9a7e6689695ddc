"""What a language model reads around the audio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dac_diffusion.autoregressive.network import Prompts
from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

AUDIO = "<AcousticTokens>"  # where the audio stands in a prompt
# Of CED + Q-Former + Llama-2: the DCASE 2024 report's (its markup is damaged), and the code's.
PROMPTS = {
    "report": f"Describe the detail of this audio: {AUDIO} \n - \n Detailed:",
    "code": f"Describe the detail of this audio:{AUDIO}\n---\nDetailed: ",
}


@dataclass(frozen=True)
class PromptIds:
    """Token ids to the left and to the right of the audio, the same for every clip."""

    left: tuple[int, ...]
    right: tuple[int, ...]

    def repeat(self, clips: int) -> Prompts:
        """Those of B clips."""
        return Prompts([list(self.left)] * clips, [list(self.right)] * clips)


def split_prompt(prompt: str) -> tuple[str, str]:
    """The texts to the left and to the right of the audio.

    prompt: "report", "code", or a text with <AcousticTokens> where the audio is to stand. Raises
    ConfigError for another.
    """
    parts = PROMPTS.get(prompt, prompt).split(AUDIO)
    if len(parts) != 2:
        raise ConfigError(
            f"prompt={prompt!r}: must be one of {', '.join(PROMPTS)}, or a text with {AUDIO} once"
        )
    return parts[0], parts[1]


def encode_prompt(prompt: str, tokenizer: PreTrainedTokenizerFast, network: Any) -> PromptIds:
    """A prompt in tokens, behind the tokenizer's start token where it has one.

    Each side is tokenized by itself. An encoder-decoder reads prompt, audio and prompt as the
    input of its encoder, which ends with the end token, as BART's inputs do.
    """
    left, right = (
        tuple(ids)
        for ids in tokenizer(list(split_prompt(prompt)), add_special_tokens=False)["input_ids"]
    )
    start = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    end = (tokenizer.eos_token_id,) if network.config.is_encoder_decoder else ()
    return PromptIds(start + left, right + end)
