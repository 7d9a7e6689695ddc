"""The error detector published with FENSE (Zhou et al. 2022), a BERT classifier of captions.

Its files are local; nothing is downloaded. Checkpoint: echecker_clotho_audiocaps_base.ckpt (release
V0.1 of blmoistawinde/fense). Encoder: config.json and vocab.txt of bert-base-uncased (of
prajjwal1/bert-tiny for ..._tiny.ckpt).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dac_diffusion.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import BertWordPieceTokenizer
    from torch import nn

ERROR_THRESHOLD = 0.9  # above it, the published systems take a caption for faulty
MAX_PIECES = 64
BATCH_SIZE = 64
_NOT_WORDS = re.compile(r"[^\w\s]")


@dataclass(frozen=True)
class FluencyErrorDetector:
    """The probability that a caption has an error of fluency, such as a missing verb.

    checkpoint: the published .ckpt file. encoder: a folder with config.json and vocab.txt of the
    BERT it was trained from. device: where it runs. The model is loaded once, at its first use.
    """

    checkpoint: Path
    encoder: Path
    device: str = "cpu"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        release = "release V0.1 of github.com/blmoistawinde/fense has it"
        bert = "the one of bert-base-uncased, or of prajjwal1/bert-tiny for the tiny checkpoint"
        files = {
            self.checkpoint: release,
            self.encoder / "config.json": bert,
            self.encoder / "vocab.txt": bert,
        }
        return [f"{path} ({way_out})" for path, way_out in files.items() if not path.is_file()]

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """The probability of an error (0 to 1) in each caption.

        Raises CheckpointError for missing files, and for a checkpoint of another kind or one that
        does not fit its encoder.
        """
        import torch

        encoder, classifier, tokenizer = self._model
        found: list[float] = []
        for start in range(0, len(captions), BATCH_SIZE):
            texts = [_NOT_WORDS.sub("", c).lower() for c in captions[start : start + BATCH_SIZE]]
            pieces = tokenizer.encode_batch(texts)
            ids = torch.tensor([p.ids for p in pieces], device=self.device)  # (B, P)
            mask = torch.tensor([p.attention_mask for p in pieces], device=self.device)  # (B, P)
            with torch.no_grad():
                hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, P, D)
                logits = classifier(hidden[:, 0])  # (B, kinds of errors)
            found += logits[:, -1].sigmoid().tolist()
        return found

    @cached_property
    def _model(self) -> tuple[nn.Module, nn.Linear, BertWordPieceTokenizer]:
        import torch
        from tokenizers import BertWordPieceTokenizer
        from transformers import BertConfig, BertModel

        if lacking := self.missing():
            raise CheckpointError(f"the error detector needs {' and '.join(lacking)}")
        try:
            # weights_only: a checkpoint of pickled code is refused and never run.
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            weights, kinds = content["state_dict"], int(content["num_classes"])
            config = BertConfig.from_json_file(self.encoder / "config.json")
            encoder = BertModel(config, add_pooling_layer=False)
            encoder.load_state_dict({n: weights[f"encoder.{n}"] for n in encoder.state_dict()})
            classifier = torch.nn.Linear(config.hidden_size, kinds)
            classifier.load_state_dict({n: weights[f"clf.{n}"] for n in classifier.state_dict()})
            tokenizer = BertWordPieceTokenizer(str(self.encoder / "vocab.txt"), lowercase=True)
        except Exception as error:  # the readers raise many kinds, down to bare Exception
            raise CheckpointError(
                f"{self.checkpoint}: is no error detector that fits {self.encoder} "
                f"({type(error).__name__}: {error}); download it again, with the encoder's files"
            ) from error
        if tokenizer.get_vocab_size() != config.vocab_size:
            raise CheckpointError(
                f"{self.encoder / 'vocab.txt'}: has {tokenizer.get_vocab_size()} pieces, but "
                f"config.json beside it says {config.vocab_size}; copy both from the same model"
            )
        tokenizer.enable_truncation(MAX_PIECES)
        tokenizer.enable_padding()
        return encoder.eval().to(self.device), classifier.to(self.device), tokenizer
