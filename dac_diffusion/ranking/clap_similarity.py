"""Audio-text similarity in the space of a published CLAP, whose audio side is in the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from dac_diffusion.codecs.codec_folder import make_config
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.laion_clap import is_laion_file, load_laion_text_encoder
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.saved_models import read_json

# What `text_config` may set: the names of transformers' ClapTextConfig, with its defaults.
TEXT_SETTINGS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("max_position_embeddings", "type_vocab_size", "initializer_factor", "layer_norm_eps"),
    *("projection_dim", "pad_token_id", "projection_hidden_act"),
)
TOKENIZER_FILE = "tokenizer.json"
# Of an accelerator, which needs many texts to be busy; a CPU gets one at a time, which costs it 1.4
# times as much with the text model of published sizes.
TEXTS_AT_ONCE, CANVAS_TOKENS = 32, 16


class ClapScorer(ModelMixin, ConfigMixin):
    """The text side of a CLAP, with its own tokenizer; satisfies `CaptionScorer`.

    For encoders whose pooled vector is the same CLAP's audio embedding, of any length:
    `HtsatEncoder`, `LaionClapEncoder`, and those that have one of them inside for their vectors.
    The vectors (N, E) have E = P numbers, 512 in published models.

    text_config: settings of transformers' ClapTextConfig that differ from its defaults.
    max_tokens: longer captions are cut. Made by `from_published` or `from_text_encoder`, or read
    by `load_saved_model`; only then it has its tokenizer, which is saved beside the weights.
    Raises ConfigError for settings that ClapTextConfig does not have.
    Source: Wu et al., arXiv 2211.06687.
    """

    @register_to_config
    def __init__(self, text_config: dict[str, Any] | None = None, max_tokens: int = 77) -> None:
        super().__init__()
        from transformers import ClapTextConfig, ClapTextModelWithProjection

        config = make_config(ClapTextConfig, text_config or {}, TEXT_SETTINGS, "text_config")
        self.text: Any = ClapTextModelWithProjection(config)
        # Tables that follow from the sizes; some versions of transformers save them, others not.
        embeddings = self.text.text_model.embeddings
        for name, table in list(embeddings.named_buffers()):
            embeddings.register_buffer(name, table, persistent=False)
        self.project_audio = nn.Identity()  # CLAP's own projection is in the encoder
        self.tokenizer: PreTrainedTokenizerFast | None = None

    @classmethod
    def from_published(
        cls, path_or_hub_id: str | Path, tokenizer: str | Path = "roberta-base"
    ) -> ClapScorer:
        """The text side of a ClapModel, a folder or Hub id, or of a .pt file of laion-clap.

        tokenizer: for a .pt file, the folder or Hub id of RoBERTa's. Raises CheckpointError for
        what is missing, damaged or of another model.
        """
        if is_laion_file(path_or_hub_id):
            return cls.from_text_encoder(load_laion_text_encoder(path_or_hub_id, tokenizer))
        return cls.from_text_encoder(ClapTextEncoder.from_published(path_or_hub_id))

    @classmethod
    def from_text_encoder(cls, encoder: ClapTextEncoder) -> ClapScorer:
        """A copy of CLAP's text side, in evaluation mode, without gradients."""
        settings = {name: getattr(encoder.model.config, name) for name in TEXT_SETTINGS}
        scorer = cls(settings, encoder.max_tokens)
        # Not strict only because of the tables.
        scorer.text.load_state_dict(encoder.model.state_dict(), strict=False)
        own = encoder.tokenizer
        # In the form that it has when it is read again, whatever class it came as.
        scorer.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=own.backend_tokenizer,
            pad_token=own.pad_token,
            model_max_length=own.model_max_length,
        )
        return scorer.eval().requires_grad_(False)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write settings, weights and the tokenizer. Raises ConfigError without a tokenizer."""
        tokenizer = self._own_tokenizer()
        super().save_pretrained(save_directory)
        tokenizer.save_pretrained(save_directory)

    def read_files(self, folder: Path) -> None:
        """Take over the tokenizer from where `save_pretrained` wrote it; runs no code from there.

        Raises CheckpointError for one that is missing, damaged or of another model.
        """
        read_json(folder / TOKENIZER_FILE)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        size = self.text.config.vocab_size
        if len(tokenizer) > size:
            raise CheckpointError(
                f"{folder / TOKENIZER_FILE}: has {len(tokenizer)} tokens, the text model {size}; "
                "they come from different checkpoints, copy both again"
            )
        self.tokenizer = tokenizer

    def embed_audio(self, pooled: Tensor) -> Tensor:
        """CLAP's audio embeddings (B, E), of any length -> unit vectors (B, E), float32."""
        return F.normalize(self.project_audio(pooled).float(), dim=-1)

    @torch.no_grad()
    def embed_captions(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
        """Captions -> unit vectors (N, E), float32; the captioner's tokenizer is not used.

        A caption's vector is the same alone and with any others: see captioning/invariance.py.
        """
        on_cpu = self.device.type == "cpu"
        encoder = ClapTextEncoder(
            self.text,
            self._own_tokenizer(),
            self.config.max_tokens,
            batch_size=1 if on_cpu else TEXTS_AT_ONCE,
            canvas=1 if on_cpu else CANVAS_TOKENS,
        )
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        vectors = encoder(list(places))  # (different captions, E)
        return vectors[[places[text] for text in texts]]  # (N, E)

    def _own_tokenizer(self) -> PreTrainedTokenizerFast:
        if self.tokenizer is None:
            raise ConfigError(
                "this ClapScorer has no tokenizer; make it by from_published, or read a saved one "
                "by load_saved_model"
            )
        return self.tokenizer
