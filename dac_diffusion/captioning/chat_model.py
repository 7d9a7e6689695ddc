"""An instruct language model of transformers on this machine: one question, one answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from dac_diffusion.chat_endpoint import CUT_OFF, EndpointError
from dac_diffusion.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class LocalChatModel:
    """A causal language model with its chat template, frozen; answers are greedy.

    name: what it was loaded from. fingerprint: changes with the model's files. max_new_tokens: the
    longest answer; a longer one ends in "...".
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    fingerprint: str
    max_new_tokens: int = MAX_NEW_TOKENS

    def complete(self, system: str, user: str, stop: Event) -> str:
        """The text of the answer; `stop` is for endpoints and changes nothing here.

        Raises EndpointError where the device fails, as for lack of memory.
        """
        import torch

        inputs = _tokenize(self.tokenizer, system, user).to(self.model.device)
        try:
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens)  # (1, L)
        except RuntimeError as error:  # out of memory and other trouble of the device
            reason = " ".join(str(error).split())[:160]
            raise EndpointError(f"{self.name}: the model failed ({reason})") from error
        answer = tokens[0, inputs["input_ids"].shape[1] :]  # (A,)
        text = str(self.tokenizer.decode(answer, skip_special_tokens=True))
        ended = answer[-1].item() in self.model.generation_config.eos_token_id
        return text if ended else f"{text}{CUT_OFF}"


def load_chat_model(name: str | Path, device: str = "cpu") -> LocalChatModel:
    """Load an instruct model from a folder or the Hub, strictly and without any code of its own.

    Raises CheckpointError for what is missing, damaged or of another kind, for weights that do not
    fit, and for a tokenizer without a chat template that takes a system message.
    """
    from dac_diffusion.captioning.pretrained import find_checkpoint
    from dac_diffusion.libraries import quiet_libraries
    from dac_diffusion.saved_models import cannot_be_loaded, check_names, check_weights, read_json

    folder = find_checkpoint(name)
    for file in ("config.json", "tokenizer.json"):
        read_json(folder / file)
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights or [folder / "model.safetensors"]:
        check_weights(path)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        check_names(folder, report["missing_keys"], report["unexpected_keys"])
        model.generation_config = _greedy(model, tokenizer)
        model = model.to(device).eval()
    except CheckpointError:
        raise
    except Exception as error:  # whatever a library raises on a file that does not fit it
        raise cannot_be_loaded(folder, AutoModelForCausalLM, error) from error
    _check_template(folder, tokenizer)
    files = [*weights, *folder.glob("*.json"), *folder.glob("*.jinja")]
    return LocalChatModel(model, tokenizer, str(name), _fingerprint(files))


def _greedy(model: Any, tokenizer: Any) -> Any:
    """Greedy decoding and nothing else that a checkpoint may ask for, such as penalties."""
    from transformers import GenerationConfig

    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ends = sorted({token for token in (*ends, tokenizer.eos_token_id) if token is not None})
    padding = tokenizer.pad_token_id
    if padding is None and ends:
        padding = ends[0]
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends,
        pad_token_id=padding,
    )


def _tokenize(tokenizer: Any, system: str, user: str) -> Any:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


def _check_template(folder: Path, tokenizer: Any) -> None:
    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{folder}: the tokenizer has no chat template, so this is no instruct model; give "
            "another one"
        )
    try:
        _tokenize(tokenizer, "system", "user")
    except Exception as error:  # a template may raise anything
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{folder}: the chat template takes no system message ({reason}); give another "
            "instruct model"
        ) from error


def _fingerprint(files: Iterable[Path]) -> str:
    """A hash of names, sizes and times, because reading all weights would take minutes."""
    listed = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return hashlib.sha256(repr(listed).encode()).hexdigest()
