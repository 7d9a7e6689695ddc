"""Count the parameters of what a config trains and captions with, beside the DAC paper's figures.

    python scripts/count_parameters.py configs/dac/beats_dit.yaml configs/dac/htsat_uvit.yaml
    python scripts/count_parameters.py configs/dac/*.yaml

Every part is built without memory for its weights, so nothing is downloaded: BEATs, HTSAT and
BERT-base have their published sizes. Prints a Markdown table in millions. `total` is what
captioning needs: audio encoder, denoiser, and of the latent space the upper layers of BERT and its
head. The lower layers are needed in training only. What the paper counts is not known.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dac_diffusion.configuration import load_config
from dac_diffusion.encoders.beats import BeatsEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.errors import ConfigError, DacError
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.training.building import make_denoiser
from dac_diffusion.training.settings import TrainingConfig

# Their defaults are the published sizes: BEATs_iter3+ and laion/clap-htsat-unfused.
ENCODERS = {"beats": BeatsEncoder, "htsat": HtsatEncoder}
HTSAT_PUBLISHED = "laion/clap-htsat-unfused"
BERT_BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
BERT_BASE_NAMES = ("google-bert/bert-base-uncased", "bert-base-uncased")
# Millions, by audio encoder and denoiser: DAC (arXiv 2409.09401), table 2.
PAPER = {
    ("htsat", "uvit"): 573,
    ("htsat", "dit"): 597,
    ("beats", "uvit"): 627,
    ("beats", "dit"): 651,
}
HEADINGS = {
    "denoiser": "denoiser",
    "latent_space": "latent space",
    "encoder": "audio encoder",
    "total": "total",
    "lower_bert": "lower BERT, in training",
    "with_lower_bert": "total with it",
    "paper": "the paper's, same encoder and denoiser",
}


def count_parameters(path: str | Path) -> dict[str, int | None]:
    """Parameters by part of the captioner that a config file describes; the keys of HEADINGS.

    paper: the paper's own figure, rounded as there, or None where it has no such row. Raises
    ConfigError for a part whose sizes are not known without its weights or data.
    """
    config = load_config(TrainingConfig, path)
    check_known(config, path)
    settings = config.text.split_bert
    with torch.device("meta"), quiet_libraries():
        encoder = make_encoder(config)
        space = SplitBertSpace(BERT_BASE, settings.split_layer, settings.extra_linear_layers)
        denoiser = make_denoiser(
            config.denoiser,
            space.latent_dim,
            encoder.feature_dim,
            encoder.pooled_dim,
            config.text.max_length,
        )
        lower = lower_bert(settings.split_layer)
    modules = {"denoiser": denoiser, "latent_space": space, "encoder": encoder}
    counts: dict[str, int] = {name: size(module) for name, module in modules.items()}
    total, lower_size = sum(counts.values()), size(lower)
    return {
        **counts,
        "total": total,
        "lower_bert": lower_size,
        "with_lower_bert": total + lower_size,
        "paper": paper_parameters(config),
    }


def make_encoder(config: TrainingConfig) -> Any:  # an AudioEncoder
    """The audio encoder of captioning; trained on captions alone, it gives its joint embedding."""
    if config.text_only.enabled:
        return JointEmbeddingEncoder("htsat")
    return ENCODERS[config.encoder.name]()


def check_known(config: TrainingConfig, path: str | Path) -> None:
    """Raise ConfigError where the sizes of a part are not the published ones."""
    text, encoder = config.text, config.encoder
    if config.system != "diffusion":
        raise ConfigError(f"{path}: system={config.system}; only diffusion captioners are counted")
    if encoder.name not in ENCODERS or encoder.weights == "random":
        raise ConfigError(
            f"{path}: encoder.name={encoder.name}, encoder.weights={encoder.weights}: only the "
            f"published sizes of {' and '.join(ENCODERS)} are counted"
        )
    if encoder.name == "htsat" and encoder.weights not in (None, HTSAT_PUBLISHED):
        raise ConfigError(
            f"{path}: encoder.weights={encoder.weights}: only {HTSAT_PUBLISHED} is counted"
        )
    bert, vocabulary = text.split_bert.bert, text.split_bert.vocabulary
    if text.latent_space != "split_bert" or bert not in BERT_BASE_NAMES or vocabulary != "all":
        raise ConfigError(
            f"{path}: text.latent_space={text.latent_space} with bert={bert} and "
            f"vocabulary={vocabulary}: only split_bert with {BERT_BASE_NAMES[0]} and all its "
            "tokens is counted"
        )


def lower_bert(layers: int) -> Any:  # a transformers BertModel
    """What encodes captions in training: the embeddings and the first layers of BERT-base."""
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(**{**BERT_BASE, "num_hidden_layers": layers}), add_pooling_layer=False
    )


def size(module: torch.nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def paper_parameters(config: TrainingConfig) -> int | None:
    """The paper's figure for its row with this encoder and denoiser; it has none without audio."""
    millions = PAPER.get((config.encoder.name, config.denoiser.kind))
    return None if millions is None or config.text_only.enabled else millions * 10**6


def table(paths: Sequence[str | Path]) -> str:
    """A Markdown table with one config a line, in millions."""
    lines = ["| config | " + " | ".join(HEADINGS.values()) + " |"]
    lines.append("|---" * (len(HEADINGS) + 1) + "|")
    for path in paths:
        counts = count_parameters(path)
        cells = []
        for key in HEADINGS:
            count = counts[key]
            digits = 0 if key == "paper" else 2
            cells.append("" if count is None else f"{count / 1e6:.{digits}f}")
        lines.append(f"| {Path(path).stem} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="YAML files of trainings")
    arguments = parser.parse_args()
    try:
        print(table(arguments.configs))
    except DacError as error:
        print(f"count_parameters: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
