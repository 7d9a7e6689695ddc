"""Language models that write captions: published ones from folders or the Hub, or a small Llama.

Read are config.json, tokenizer.json and safetensors files, whole or in parts; a folder's own code
never runs. Llama-2 is offered on the Hub after one has accepted its licence there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.saved_models import cannot_be_loaded, check_names, check_weights, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
CLASSES = {
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bart": "BartForConditionalGeneration",
}
WHOLE, PARTS = "model.safetensors", "model.safetensors.index.json"
GPT2_PADDING = "!"  # GPT-2 has no token for it; RECAP's choice, which no normalised caption holds
SIMILAR = {"bart": "facebook/bart-base", "llama": "meta-llama/Llama-2-7b-hf"}


@dataclass(frozen=True)
class LanguageModel:
    """A transformers network, and its tokenizer as a PreTrainedTokenizerFast.

    The tokenizer's padding differs from its end token. The network's config has the same tokens.
    """

    network: Any
    tokenizer: PreTrainedTokenizerFast


def load_language_model(name: str | Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A Llama, GPT-2 or BART with its tokenizer, from a folder or a Hub id (owner/name).

    dtype: of the weights; 7 billion of them take 28 GB in float32 and 14 GB in bfloat16. Padding
    is the model's own, else its unknown token (as published for Llama), else "!" (GPT-2).
    What the folder says about generation, such as beams, is dropped: the settings of a call count.
    A BART's "<s>" is its [CLS], so that captions begin with it.

    Raises CheckpointError, naming the file, for what is missing, cut off, of another kind or of
    sizes that do not belong together, and for a Hub id that cannot be had.
    """
    folder = _find_folder(name)
    path = folder / "config.json"
    kind = read_json(path).get("model_type")
    if not isinstance(kind, str) or kind not in CLASSES:
        raise CheckpointError(
            f"{path}: describes a model of type {kind!r}; the language models here are of type "
            f"{', '.join(CLASSES)}, such as {' and '.join(SIMILAR.values())}"
        )
    _check_weights(folder)
    network = _read_network(folder, kind, dtype)
    tokenizer = _read_tokenizer(folder, kind, network.config)
    _settle(network, tokenizer)
    return LanguageModel(network, tokenizer)


@dataclass(frozen=True)
class SmallModelConfig:
    """Sizes of a small language model to be trained from nothing; about 7 million parameters.

    layers: of a Llama; a BART has half of them in its encoder and the rest in its decoder.
    max_positions: places for prompts, audio and caption together.
    """

    width: int = 256
    layers: int = 8
    heads: int = 4
    feed_forward: int = 688
    dropout: float = 0.1  # of a Llama's attention, which has no other
    max_positions: int = 1024

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        for name in ("width", "heads", "feed_forward", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"small.{name}={getattr(self, name)}: must be at least 1")
        if self.layers < 2:
            raise ConfigError(f"small.layers={self.layers}: must be at least 2")
        if self.width % (2 * self.heads):  # positions are rotations of pairs within a head
            raise ConfigError(
                f"small.width={self.width}: must be a multiple of twice small.heads={self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"small.dropout={self.dropout}: must be from 0 to below 1")


def build_llama(config: SmallModelConfig, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A randomly initialised LlamaForCausalLM with tied embeddings over a tokenizer's words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_positions,
            attention_dropout=config.dropout,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    _settle(network, tokenizer)
    return network


def _find_folder(name: str | Path) -> Path:
    if not Path(name).exists() and not HUB_ID.fullmatch(str(name)):
        raise CheckpointError(
            f"{name}: there is no such folder; give the folder of a Llama, GPT-2 or BART, or a Hub "
            f"id (owner/name) such as {SIMILAR['llama']}"
        )
    return find_checkpoint(name)


def _check_weights(folder: Path) -> None:
    """Raise CheckpointError unless all weights are there, as whole safetensors files."""
    files: Iterable[str] = [WHOLE]
    if not (folder / WHOLE).is_file() and (folder / PARTS).is_file():
        parts = read_json(folder / PARTS).get("weight_map")
        if not isinstance(parts, dict) or not parts or not all(map(_is_name, parts.values())):
            raise CheckpointError(f"{folder / PARTS}: damaged, it names no files; copy it again")
        files = sorted(set(parts.values()))
    elif not (folder / WHOLE).is_file():
        raise CheckpointError(
            f"{folder}: has neither {WHOLE} nor {PARTS}; other formats (pytorch_model.bin) are not "
            "read, as they may hold code: get the safetensors files"
        )
    for file in files:
        check_weights(folder / file)


def _is_name(value: Any) -> bool:
    """Whether it is the name of a file in the same folder."""
    return isinstance(value, str) and Path(value).name == value


def _read_network(folder: Path, kind: str, dtype: torch.dtype) -> Any:
    import transformers

    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder}: holds adapters beside the model, which would be left out; merge them into "
            "it, or remove adapter_config.json"
        )
    cls = getattr(transformers, CLASSES[kind])
    try:
        with quiet_libraries():
            network, report = cls.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
            )
    except Exception as error:  # whatever the library raises on a file that does not fit it
        raise cannot_be_loaded(folder, cls, error) from error
    # GPT-2's causal masks, which older files hold as weights and some versions ask about.
    masks = ("attn.bias", "attn.masked_bias")
    unexpected = [name for name in report["unexpected_keys"] if not name.endswith(masks)]
    check_names(folder, report["missing_keys"], unexpected)
    if network.config.is_encoder_decoder and network.config.decoder_start_token_id is None:
        raise CheckpointError(
            f"{folder / 'config.json'}: has no decoder_start_token_id; copy it again"
        )
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise CheckpointError(
            f"{folder}: {name} is {tuple(found)} instead of {tuple(expected)}; config.json and the "
            "weights do not belong together, copy both again"
        )
    return network.eval()


def _read_tokenizer(folder: Path, kind: str, config: Any) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is missing; copy the model's tokenizer there (one that has only "
            "tokenizer.model: load it with transformers and save it again)"
        )
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # a bare Exception for whatever is wrong
        raise CheckpointError(f"{path}: damaged or no tokenizer; copy it again") from error
    backend.no_padding()
    backend.no_truncation()
    if backend.get_vocab_size() > config.vocab_size:
        raise CheckpointError(
            f"{path}: has {backend.get_vocab_size()} tokens, but the network has "
            f"{config.vocab_size}; they do not belong together, copy both again"
        )
    end = _token(backend, config.eos_token_id)
    padding = _padding(backend, config, end)
    if end is None or padding is None:
        lacking = "eos_token_id" if end is None else "pad_token_id"
        raise CheckpointError(
            f"{folder / 'config.json'}: has no {lacking} that is a token of tokenizer.json"
            f"{'' if end is None else ' and not the end token'}; add it"
        )
    begin = _token(backend, config.bos_token_id)
    mask = "<mask>" if backend.token_to_id("<mask>") is not None else None
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=begin,
        eos_token=end,
        pad_token=padding,
        unk_token=_unknown(backend),
        cls_token=begin if kind == "bart" else None,
        sep_token=end if kind == "bart" else None,
        mask_token=mask if kind == "bart" else None,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
    )


def _token(backend: Any, token_id: Any) -> str | None:
    """The token of an id, or of the first of several; None where there is none."""
    if isinstance(token_id, list):
        token_id = token_id[0] if token_id else None
    if not isinstance(token_id, int) or token_id < 0:
        return None
    token: str | None = backend.id_to_token(token_id)
    return token


def _padding(backend: Any, config: Any, end: str | None) -> str | None:
    """The model's own padding, its unknown token or "!", the first that is not its end token."""
    exclamation = GPT2_PADDING if backend.token_to_id(GPT2_PADDING) is not None else None
    last = exclamation if config.model_type == "gpt2" else None
    candidates = (_token(backend, config.pad_token_id), _unknown(backend), last)
    return next((token for token in candidates if token is not None and token != end), None)


def _unknown(backend: Any) -> str | None:
    names = (getattr(backend.model, "unk_token", None), "<unk>")
    return next((n for n in names if n and backend.token_to_id(n) is not None), None)


def _settle(network: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """The tokenizer's tokens in the network's config, and no other settings for generation."""
    from transformers import GenerationConfig

    config = network.config
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    start = config.decoder_start_token_id if config.is_encoder_decoder else None
    if config.is_encoder_decoder:
        config.forced_eos_token_id = None
    network.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=start,
    )
