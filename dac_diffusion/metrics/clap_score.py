"""CLAP score: how well a caption fits the sound itself, by a CLAP model in transformers' form.

The cosine of the model's audio and text vectors; references play no part. The DAC paper used
laion-clap's 630k-best.pt: values of another model are not comparable, so the name tells the folder.
Never score captions with the CLAP model that selected them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dac_diffusion.audio.loading import audio_duration, load_audio
from dac_diffusion.audio.windows import window_bounds
from dac_diffusion.errors import AudioError, CheckpointError
from dac_diffusion.metrics.external import require_available
from dac_diffusion.metrics.inputs import check_pairs

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# One of each row. Published folders have the first names; transformers 5 writes processor_config.
FILES = (
    ("config.json",),
    ("tokenizer.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("model.safetensors", "pytorch_model.bin"),
)
FILES_IN_ERRORS = 3
BATCH_SIZE = 64
SHORTEST_TAIL_SECONDS = 1.0  # a shorter rest says little and would weigh as much as a full window


@dataclass(frozen=True)
class ClapScore:
    """Cosine of caption and recording (-1 to 1) under a CLAP model.

    folder: the model in transformers' form, such as laion/clap-htsat-unfused. audio: one recording
    per clip, in the order of the captions. A recording longer than the model's window (10 s) is
    cut into consecutive windows whose vectors are averaged, with nothing left to chance.
    """

    folder: Path
    audio: Sequence[Path] = field(repr=False)
    device: str = "cpu"

    @property
    def name(self) -> str:
        """The key in results; names the model, as other models give other values."""
        return f"clap_score_{self.folder.name}"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out; looks at the header of every recording."""
        lacking = [
            f"{' or '.join(names)} in {self.folder} (the folder of laion/clap-htsat-unfused has it)"
            for names in FILES
            if not any((self.folder / name).is_file() for name in names)
        ]
        if (self.folder / "config.json").is_file() and _model_type(self.folder) != "clap":
            lacking.append(f"a CLAP model, {self.folder} holds another kind; give its folder")
        faults = [fault for path in self.audio if (fault := _audio_fault(path))]
        if faults:
            more = f"; {len(faults)} in all" if len(faults) > FILES_IN_ERRORS else ""
            lacking.append(f"the recordings ({'; '.join(faults[:FILES_IN_ERRORS])}{more})")
        return lacking

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """The cosine of each clip's caption and recording.

        Raises MissingExtraError for what is missing, CheckpointError for a damaged model,
        AudioError for a recording that cannot be decoded.
        """
        check_pairs(self.name, candidates, references)
        check_pairs(
            f"{self.name}, of recordings,", candidates, [[str(path)] for path in self.audio]
        )
        require_available([self])
        model, processor = self._load()
        ours = self._embed_captions(candidates, model, processor)  # (N, D)
        scores = []
        for path, vector in zip(self.audio, ours, strict=True):
            scores.append((self._embed_audio(path, model, processor) @ vector).item())
        return scores

    def _load(self) -> tuple[Any, Any]:
        from transformers import ClapModel, ClapProcessor

        from dac_diffusion.libraries import quiet_libraries

        try:
            with quiet_libraries():
                model, loading = ClapModel.from_pretrained(
                    self.folder, local_files_only=True, output_loading_info=True
                )
                processor = ClapProcessor.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # the readers raise many kinds, down to bare Exception
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        # transformers would leave these random without an error.
        absent = set(loading["missing_keys"]) & {name for name, _ in model.named_parameters()}
        if absent:
            raise self._damaged(f"{len(absent)} weights are missing, such as {min(absent)}")
        return model.eval().to(self.device), processor

    def _damaged(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder}: the CLAP model cannot be read ({reason}); download it again"
        )

    def _embed_captions(self, captions: Sequence[str], model: Any, processor: Any) -> Tensor:
        import torch

        vectors = []
        for start in range(0, len(captions), BATCH_SIZE):
            pieces = processor.tokenizer(
                list(captions[start : start + BATCH_SIZE]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            with torch.no_grad():
                found = model.get_text_features(
                    input_ids=pieces["input_ids"], attention_mask=pieces["attention_mask"]
                )
            vectors.append(_unit(found))
        return torch.cat(vectors)  # (N, D)

    def _embed_audio(self, path: Path, model: Any, processor: Any) -> Tensor:
        import torch

        extractor = processor.feature_extractor
        vectors = []
        for window in _windows(path, extractor.sampling_rate, extractor.max_length_s):
            # One at a time and no longer than the model's input: beyond it, and among several
            # clips of a fused model, the extractor chooses at random.
            features = extractor(
                window, sampling_rate=extractor.sampling_rate, return_tensors="pt"
            ).to(self.device)
            with torch.no_grad():
                found = model.get_audio_features(
                    input_features=features["input_features"],
                    is_longer=torch.zeros_like(features["is_longer"]),
                )
            vectors.append(_unit(found))
        return torch.nn.functional.normalize(torch.cat(vectors).mean(dim=0), dim=0)  # (D,)


def _windows(path: Path, sampling_rate: int, seconds: float) -> list[np.ndarray]:
    waveform = load_audio(path, sampling_rate)  # (T,)
    bounds = window_bounds(len(waveform), int(seconds * sampling_rate), 0)
    windows = [waveform[start:end] for start, end in bounds]
    if len(windows) > 1 and len(windows[-1]) < SHORTEST_TAIL_SECONDS * sampling_rate:
        windows.pop()
    return windows


def _unit(found: Any) -> Tensor:
    """Vectors of length 1; transformers 4 gives the vectors, transformers 5 an object with them."""
    from torch.nn.functional import normalize

    return normalize(getattr(found, "pooler_output", found).float(), dim=-1)


def _audio_fault(path: Path) -> str | None:
    try:
        audio_duration(path)
    except AudioError as error:
        return str(error)
    return None


def _model_type(folder: Path) -> str | None:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("model_type") if isinstance(content, dict) else None
