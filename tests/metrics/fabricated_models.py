"""Models of random weights in the layouts in which FENSE's parts and CLAP are published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

WORDS = (
    *("a", "the", "dog", "dogs", "bark", "##s", "##ing", "rain", "fall", "on", "roof", "and"),
    *("then", "stop", "heavy", "two", "is"),
)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
KINDS_OF_ERRORS = 6


def save_bert(folder: Path, seed: int = 0) -> nn.Module:
    """config.json, vocab.txt, tokenizer.json and model.safetensors of a small BERT."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=80,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config).eval()
    model.save_pretrained(folder)
    return model


def save_error_detector(path: Path, encoder: Path, bias: float = 0.0) -> dict[str, Tensor]:
    """The checkpoint of FENSE's release; a large bias of the last class finds errors everywhere."""
    weights = {f"encoder.{k}": v for k, v in save_bert(encoder, seed=1).state_dict().items()}
    weights["encoder.embeddings.position_ids"] = torch.arange(80)[None]  # as older versions wrote
    with torch.random.fork_rng():
        torch.manual_seed(2)
        weights["clf.weight"] = torch.randn(KINDS_OF_ERRORS, 16)
        weights["clf.bias"] = torch.zeros(KINDS_OF_ERRORS)
    weights["clf.bias"][-1] = bias
    content = {
        "model_type": "bert-base-uncased",
        "num_classes": KINDS_OF_ERRORS,
        "state_dict": weights,
    }
    torch.save(content, path)
    return weights


def save_sentence_model(folder: Path) -> None:
    """A folder of sentence-transformers: a BERT, then the mean over its pieces."""
    save_bert(folder)
    layers = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(layers))
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def save_clap(folder: Path, fused: bool = False, seed: int = 0, projection_dim: int = 8) -> None:
    """A small CLAP in transformers' form that hears one second at 8 kHz."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        PreTrainedTokenizerFast,
    )

    words = Tokenizer(WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=40
    )
    extractor = ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=8000,
        hop_length=80,
        max_length_s=1,
        fft_window_size=256,
        frequency_max=4000,
        truncation="fusion" if fused else "rand_trunc",
    )
    text = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "projection_dim": projection_dim,
        "initializer_factor": 10.0,
    }
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "window_size": 4,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 16,
        "projection_dim": projection_dim,
        "enable_fusion": fused,
        "num_classes": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ClapConfig(text_config=text, audio_config=audio, projection_dim=projection_dim)
        model = ClapModel(config)
    model.save_pretrained(folder)
    ClapProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)


def save_like_laion(path: Path, weights: dict[str, Tensor]) -> None:
    """A training checkpoint: names of several GPUs, numbers of numpy's types, an optimizer."""
    state = {f"module.{name}": value for name, value in weights.items()}
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2))])
    torch.save(
        {
            "epoch": 45,
            "name": "630k",
            "state_dict": state,
            "optimizer": optimizer.state_dict(),
            "best": np.float64(0.25),
            "metrics": {"mean": np.float32(0.5), "rank": np.int64(3), "done": np.bool_(True)},
        },
        path,
    )


def laion_text_side(vocabulary_size: int) -> nn.ModuleDict:
    """The text part of laion-clap's model in a small size, all its weights random."""
    from transformers import RobertaConfig, RobertaModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = RobertaConfig(
            vocab_size=vocabulary_size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=100,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        projection = nn.Sequential(nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 8))
        model = nn.ModuleDict({"text_branch": RobertaModel(config), "text_projection": projection})
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn(weight.shape))
    return model.eval()
