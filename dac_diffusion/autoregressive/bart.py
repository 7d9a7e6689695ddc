"""BART (Lewis et al., arXiv 1910.13461) as the network of a captioner: a small one, or a published.

With it comes the shift of the encoder's positions by which EnCLAP makes room for a clip's vector.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from dac_diffusion.errors import CheckpointError
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.saved_models import cannot_be_loaded, check_names, check_weights, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
WEIGHTS = "model*.safetensors"  # one file, or the parts of a large model
FILES = ("*.json", "merges.txt", WEIGHTS)
SHIFTED = "encoder_positions_shifted"  # in a network's config.json


@dataclass(frozen=True)
class PublishedBart:
    """A BART as it was published: a BartForConditionalGeneration, and its tokenizer.

    The tokenizer has <s> as its [CLS]: captions begin with it, as BART's own texts do.
    """

    network: Any
    tokenizer: PreTrainedTokenizerFast


def load_bart(name: str | Path) -> PublishedBart:
    """Load a BART and its tokenizer from a folder, or a Hub id such as facebook/bart-base.

    Only safetensors and JSON are read (merges.txt where there is no tokenizer.json). Its settings
    for generation, as beams, are dropped: those of a call are what counts. Raises CheckpointError
    for what is missing, damaged, or no BART.
    """
    folder = _find_folder(name)
    path = folder / "config.json"
    kind = read_json(path).get("model_type")
    if kind != "bart":
        raise CheckpointError(
            f"{path}: describes a model of type {kind!r}, not 'bart'; give a BART such as "
            "facebook/bart-base"
        )
    network = _read_network(folder)
    tokenizer = _read_tokenizer(folder)
    config = network.config
    found = [len(tokenizer), tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id]
    wanted = [config.vocab_size, config.bos_token_id, config.pad_token_id, config.eos_token_id]
    if found != wanted:
        raise CheckpointError(
            f"{folder}: the tokenizer has {found[0]} tokens with <s>, <pad>, </s> at {found[1:]}, "
            f"but config.json says {wanted[0]} and {wanted[1:]}; they do not belong together, "
            "copy both again"
        )
    _drop_generation_settings(network)
    return PublishedBart(network, tokenizer)


def build_bart(
    tokenizer: Any,
    width: int,
    encoder_layers: int,
    decoder_layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    max_positions: int,
) -> BartForConditionalGeneration:
    """A randomly initialised BART over the words of a tokenizer.

    max_positions: places of the encoder and of the decoder, for T codes T + 3. Captions begin with
    the tokenizer's start token; one that has [CLS] instead puts it into the captions, and they
    begin with its end token, as the published BART's.
    """
    end = tokenizer.eos_token_id
    starts = (tokenizer.bos_token_id, tokenizer.cls_token_id, end)
    in_captions = tokenizer.cls_token_id is not None or tokenizer.bos_token_id is None
    network = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=feed_forward,
            decoder_ffn_dim=feed_forward,
            dropout=dropout,
            max_position_embeddings=max_positions,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=next(token for token in starts if token is not None),
            eos_token_id=end,
            decoder_start_token_id=end if in_captions else tokenizer.bos_token_id,
        )
    )
    _drop_generation_settings(network)
    return network


@torch.no_grad()
def shift_encoder_positions(network: Any) -> None:
    """Take the position of the encoder's first slot away, and move all others on by one, in place.

    Slot 0, the clip's vector, then has a zero position vector, which training leaves at zero, slot
    1 position 0, and so on: what EnCLAP computes, by a table that stock BART adds. The last
    position of the table is dropped. The network's config notes the shift; of a network that has
    it already, as one loaded again, only the zero row is held once more.
    """
    table = network.get_encoder().embed_positions
    first = table.offset  # rows that BART leaves unused
    if not is_shifted(network):
        table.weight[first + 1 :] = table.weight[first:-1].clone()
        table.weight[first].zero_()
        setattr(network.config, SHIFTED, True)
    table.padding_idx = first  # the row of an embedding that has no gradient


def is_shifted(network: Any) -> bool:
    """Whether `shift_encoder_positions` was called for a network, before it was saved or since."""
    return bool(getattr(network.config, SHIFTED, False))


def _drop_generation_settings(network: Any) -> None:
    """Beams, forced tokens and the like, which would mix with those of a call."""
    config = network.config
    config.forced_eos_token_id = None
    network.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )


def _read_network(folder: Path) -> Any:
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        raise CheckpointError(
            f"{folder}: has no model.safetensors; other formats (pytorch_model.bin) are not read, "
            "as they may hold code: get the safetensors file"
        )
    for path in files:
        check_weights(path)
    try:
        with quiet_libraries():
            network, report = BartForConditionalGeneration.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
            )
    except Exception as error:  # whatever the library raises on a file that does not fit it
        raise cannot_be_loaded(folder, BartForConditionalGeneration, error) from error
    check_names(folder, report["missing_keys"], report["unexpected_keys"])
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise CheckpointError(
            f"{folder}: {name} is {tuple(found)} instead of {tuple(expected)}; config.json and the "
            "weights do not belong together, copy both again"
        )
    if network.config.decoder_start_token_id is None:
        raise CheckpointError(
            f"{folder / 'config.json'}: has no decoder_start_token_id; copy it again"
        )
    return network.float().eval()


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import BartTokenizer, PreTrainedTokenizerFast

    if not _has_tokenizer(folder):  # the library would make an empty one
        raise CheckpointError(
            f"{folder}: has no tokenizer.json (nor vocab.json with merges.txt); copy the "
            "tokenizer of the same model there"
        )
    try:
        with quiet_libraries():
            read = BartTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever the library raises on a file that does not fit it
        raise cannot_be_loaded(folder, BartTokenizer, error) from error
    backend = read.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    # The one class that a saved captioner names for its tokenizer.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=read.bos_token,
        eos_token=read.eos_token,
        unk_token=read.unk_token,
        pad_token=read.pad_token,
        cls_token=read.cls_token,
        sep_token=read.sep_token,
        mask_token=read.mask_token,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
    )


def _has_tokenizer(folder: Path) -> bool:
    present = {path.name for path in folder.glob("*")}
    return "tokenizer.json" in present or {"vocab.json", "merges.txt"} <= present


def _find_folder(name: str | Path) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{name}: is a file; give the folder of a BART")
    if not HUB_ID.fullmatch(str(name)):
        raise CheckpointError(
            f"{name}: there is no such folder; give the folder of a BART, or a Hub id such as "
            "facebook/bart-base"
        )
    return _from_hub(str(name))


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError, HFValidationError):
        folder = Path(snapshot_download(name, local_files_only=True))
        if any(folder.glob(WEIGHTS)) and _has_tokenizer(folder):
            return folder  # otherwise only parts of it were downloaded
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise CheckpointError(
            f"{name}: no such folder here, not downloaded before, and HF_HUB_OFFLINE is set; give "
            "the path of a BART folder"
        )
    try:
        files = HfApi().model_info(name, files_metadata=True).siblings or []
        size = sum(file.size or 0 for file in files if Path(file.rfilename).match(WEIGHTS))
        logging.getLogger("dac_diffusion").warning(
            "downloading the BART %s from the Hugging Face Hub (%.0f MB)", name, size / 1e6
        )
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # from no network to no such model
        reason = " ".join(str(error).split())[:160] or "no reason given"
        raise CheckpointError(
            f"{name}: no such folder here, and the Hugging Face Hub does not give it "
            f"({type(error).__name__}: {reason}); give the path of a BART folder"
        ) from error
