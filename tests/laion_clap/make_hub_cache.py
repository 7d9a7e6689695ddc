"""Fill a Hugging Face cache with small random models under the names that laion-clap loads.

    python tests/laion_clap/make_hub_cache.py FOLDER

With HF_HOME=FOLDER and HF_HUB_OFFLINE=1, laion-clap is imported and builds its models without a
network: importing it loads the tokenizers of bert-base-uncased, roberta-base and
facebook/bart-base, building a model the weights of roberta-base.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MARK = "fabricated"  # a file beside the cache: the tests run on fabricated models only
REVISION = "0" * 40
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MERGES = ("d o", "do g", "Ġ do", "Ġ b", "a r", "ar k", "Ġb ark", "r a", "i n", "ra in")
NUM_LAYERS = 2  # of RoBERTa's 12; its width must be 768


def byte_vocabulary() -> dict[str, int]:
    """RoBERTa's layout: special tokens, the 256 bytes as printable characters, merged pieces."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = [*SPECIAL[:4], *sorted(ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]
    return {piece: index for index, piece in enumerate([*pieces, SPECIAL[4]])}


def snapshot(cache: Path, name: str) -> Path:
    """The empty folder of a model's only revision."""
    model = cache / "hub" / f"models--{name.replace('/', '--')}"
    folder = model / "snapshots" / REVISION
    folder.mkdir(parents=True, exist_ok=True)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(REVISION)
    return folder


def write_byte_tokenizer(folder: Path, kind: str) -> int:
    """vocab.json, merges.txt and settings of a RoBERTa or BART tokenizer; returns its size."""
    vocabulary = byte_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    settings = {"tokenizer_class": kind, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


def write_cache(cache: Path) -> None:
    """Everything that laion-clap asks the Hub for."""
    import torch
    from transformers import BartConfig, BertConfig, RobertaConfig, RobertaModel

    bert = snapshot(cache, "bert-base-uncased")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "bark", "##s"]
    (bert / "vocab.txt").write_text("\n".join(words) + "\n")
    (bert / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    BertConfig(vocab_size=len(words)).save_pretrained(bert)

    bart = snapshot(cache, "facebook/bart-base")
    BartConfig(vocab_size=write_byte_tokenizer(bart, "BartTokenizer")).save_pretrained(bart)

    roberta = snapshot(cache, "roberta-base")
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=write_byte_tokenizer(roberta, "RobertaTokenizer"),
        num_hidden_layers=NUM_LAYERS,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.05,
    )
    RobertaModel(config).save_pretrained(roberta)
    (cache / MARK).touch()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_cache(Path(sys.argv[1]))
