"""CLAP's original .pt files (630k-audioset-best.pt and others) through the package laion-clap."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.audio.clap_mel import ClapLogMel, repeat_pad
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.clap_features import (
    RealFrames,
    check_choice,
    check_window,
    clap_features,
)
from dac_diffusion.encoders.clap_folder import fill_by_name
from dac_diffusion.encoders.clap_text import ClapTextEncoder, load_tokenizer
from dac_diffusion.encoders.patch_features import FrequencyPooling
from dac_diffusion.encoders.published_weights import read_weights
from dac_diffusion.errors import CheckpointError, MissingExtraError

AudioModel = Literal["HTSAT-tiny", "HTSAT-base"]

SAMPLING_RATE, INPUT_SECONDS, POOLED_DIM = 48000, 10.0, 512
WIDTHS: dict[AudioModel, int] = {"HTSAT-tiny": 96, "HTSAT-base": 128}  # of the first stage
DOWNSAMPLING = 2**3  # between the first of four stages and the last
# Computed in float32 by ClapLogMel instead; in the files only because their layers are modules.
FRONT_END = ("audio_branch.spectrogram_extractor.", "audio_branch.logmel_extractor.")
MAX_TOKENS = 77  # of a text, as laion-clap cuts it
ROBERTA_HEAD_DIM = 64
TEXT_NAMES = {
    "text_branch.": "text_model.",
    "text_projection.0.": "text_projection.linear1.",
    "text_projection.2.": "text_projection.linear2.",
}


class LaionClapEncoder(ModelMixin, ConfigMixin):
    """`HtsatEncoder` for the original files: the HTSAT of laion-clap, satisfying `AudioEncoder`.

    features (B, 64, D), time-major, 3.2 frames a second of 2 bands each, or (B, 32, D) with
    frequency_pooling "mean" (laion-clap's fine-grained embedding without its repetitions); D is
    768 for HTSAT-tiny and 1024 for HTSAT-base. pooled (B, 512): CLAP's audio embedding of unit
    length. What is said of `HtsatEncoder` about repeated clips, long windows and `real_frames`
    holds here: laion-clap's own log-mel and random crops are never called.

    quantize: round the waveform to 16 bits, as laion-clap does with arrays and files.
    Raises MissingExtraError without the extra `laion-clap`, ConfigError for bad settings.
    Source: Wu et al., arXiv 2211.06687.
    """

    window_is_limit = True

    @register_to_config
    def __init__(
        self,
        audio_model: AudioModel = "HTSAT-tiny",
        enable_fusion: bool = False,
        window_seconds: float | None = None,
        frequency_pooling: FrequencyPooling = "none",
        real_frames: RealFrames = "all",
        quantize: bool = True,
    ) -> None:
        super().__init__()
        check_choice("audio_model", audio_model, AudioModel)
        check_choice("frequency_pooling", frequency_pooling, FrequencyPooling)
        check_choice("real_frames", real_frames, RealFrames)
        check_window(window_seconds, INPUT_SECONDS)
        self.sampling_rate, self.pooled_dim = SAMPLING_RATE, POOLED_DIM
        self.window_seconds = INPUT_SECONDS if window_seconds is None else window_seconds
        self.feature_dim = WIDTHS[audio_model] * DOWNSAMPLING
        self.input_samples = round(INPUT_SECONDS * SAMPLING_RATE)
        self.frequency_pooling, self.real_frames = frequency_pooling, real_frames
        self.quantize = quantize
        self.log_mel = ClapLogMel(mel_scale="htk" if enable_fusion else "slaney")
        self.audio_branch = _build_htsat(audio_model, enable_fusion)
        self.audio_projection = nn.Sequential(
            nn.Linear(self.feature_dim, POOLED_DIM), nn.ReLU(), nn.Linear(POOLED_DIM, POOLED_DIM)
        )

    @classmethod
    def from_published(
        cls, path: str | Path, window_seconds: float | None = None
    ) -> LaionClapEncoder:
        """The audio side of a .pt file of laion-clap; its size and fusion are read from it.

        Raises CheckpointError for a file that is missing, damaged or of another model,
        MissingExtraError without the extra `laion-clap`, ConfigError for a window over 10 s.
        """
        weights = read_laion_weights(path)
        audio_model, enable_fusion = _recognize(weights, Path(path))
        encoder = cls(
            audio_model=audio_model, enable_fusion=enable_fusion, window_seconds=window_seconds
        )
        if not enable_fusion:  # with fusion, the file's bands are not the network's
            _check_bands(weights, encoder.log_mel.filter_bank, Path(path))
        wanted = ("audio_branch.", "audio_projection.")
        kept = {n: w for n, w in weights.items() if n.startswith(wanted)}
        kept = {n: w for n, w in kept.items() if not n.startswith(FRONT_END)}
        fill_by_name(encoder, kept, Path(path))
        return encoder.eval()

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: a multiple of the 10 s that HTSAT hears."""
        return max(1, math.ceil(num_samples / self.input_samples)) * self.input_samples

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""
        if self.quantize:
            waveform = (waveform.float().clamp(-1, 1) * 32767).trunc() / 32767
        log_mel = self.log_mel(repeat_pad(waveform, num_samples, self.input_samples))  # (B, T, M)
        hidden, embedding = self._htsat(log_mel.to(self.dtype))
        return clap_features(
            hidden,
            self.audio_projection(embedding),
            num_samples,
            self.input_samples,
            self.frequency_pooling,
            self.real_frames,
        )

    def _htsat(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """HTSAT's map (B, D, bands, time) and its mean (B, D), of log-mel (B, T, M)."""
        branch = self.audio_branch
        # What HTSAT's own forward does with a clip up to 10 s. Of the four equal views that a
        # model with fusion is given it reads the first only, so there is one.
        image = rearrange(log_mel, "b t m -> b m t 1")
        image = rearrange(branch.bn0(image), "b m t 1 -> b 1 t m")
        image = branch.reshape_wav2img(image)  # (B, 1, 256, 256)
        tokens: list[Tensor] = []
        hook = branch.norm.register_forward_hook(lambda *call: tokens.append(call[2]))
        try:
            embedding = branch.forward_features(image, longer_idx=[])["embedding"]  # (B, D)
        finally:
            hook.remove()
        # The image is the log-mel cut into `freq_ratio` stretches of time, one above the other.
        rows, columns = (size // DOWNSAMPLING for size in branch.patches_resolution)
        bands = rows // branch.freq_ratio
        hidden = rearrange(tokens[0], "b (r f t) d -> b d f (r t)", f=bands, t=columns)
        return hidden, embedding


def is_laion_file(name: str | Path) -> bool:
    """Whether a name is that of a .pt file of laion-clap, not of a ClapModel's folder or Hub id."""
    return Path(name).suffix == ".pt" or Path(name).is_file()


def load_laion_text_encoder(
    path: str | Path, tokenizer: str | Path = "roberta-base"
) -> ClapTextEncoder:
    """The text side of a .pt file of laion-clap, a RoBERTa; needs no laion-clap.

    tokenizer: a folder with RoBERTa's tokenizer or its Hub id; the folder of
    laion/clap-htsat-unfused has the same. Raises CheckpointError for a file or a tokenizer that
    is missing, damaged or of another model.
    """
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    weights = {
        ours + name.removeprefix(theirs): value
        for name, value in read_laion_weights(path).items()
        for theirs, ours in TEXT_NAMES.items()
        if name.startswith(theirs)
    }
    layer = "text_model.encoder.layer."
    try:
        vocabulary_size, width = weights["text_model.embeddings.word_embeddings.weight"].shape
        config = ClapTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=width,
            num_hidden_layers=len({n.split(".")[3] for n in weights if n.startswith(layer)}),
            num_attention_heads=max(1, width // ROBERTA_HEAD_DIM),
            intermediate_size=len(weights[f"{layer}0.intermediate.dense.bias"]),
            max_position_embeddings=len(
                weights["text_model.embeddings.position_embeddings.weight"]
            ),
            layer_norm_eps=1e-5,  # RoBERTa's, not the default of ClapTextConfig
            projection_dim=len(weights["text_projection.linear2.bias"]),
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path}: its text model is no RoBERTa (no {error.args[0]}), the only one read here"
        ) from error
    found = load_tokenizer(tokenizer, vocabulary_size)
    model = ClapTextModelWithProjection(config)
    fill_by_name(model, weights, Path(path))
    return ClapTextEncoder(model.eval().requires_grad_(False), found, MAX_TOKENS)


def read_laion_weights(path: str | Path) -> dict[str, Tensor]:
    """All weights of a .pt file under laion-clap's names, without "module." before them.

    Nothing in the file is run (weights_only=True); numbers of numpy's types, which stand beside
    the weights, are allowed. `position_ids`, a table that transformers once saved and now refuses,
    is left out. Raises CheckpointError for a file that is missing, damaged or holds no such CLAP.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise CheckpointError(
            f"{path}: PyTorch {torch.__version__} cannot read it without running code from it; "
            "upgrade to 2.6 or newer"
        )
    with torch.serialization.safe_globals(_numpy_numbers()):
        content = read_weights(path)
    found = content.get("state_dict", content)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise CheckpointError(f"{path}: holds no weights by name; download it again")
    weights = {n.removeprefix("module."): w for n, w in found.items() if isinstance(w, Tensor)}
    if not any(name.startswith("audio_branch.") for name in weights):
        raise CheckpointError(
            f"{path}: holds no CLAP of laion-clap (no audio_branch.*); give a .pt file such as "
            "630k-audioset-best.pt, or load a transformers ClapModel with the encoder htsat"
        )
    return {name: value for name, value in weights.items() if not name.endswith("position_ids")}


def _numpy_numbers() -> list[Any]:
    """What a number of one of numpy's types is stored as."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    # numpy 2 renamed its module; files know either name.
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *kinds, *((scalar, name) for name in names)]


def _recognize(weights: dict[str, Tensor], path: Path) -> tuple[AudioModel, bool]:
    """Which HTSAT a file holds, and whether with fusion."""
    patches = weights.get("audio_branch.patch_embed.proj.weight")  # (width, 1, 4, 4)
    fused = any(name.startswith("audio_branch.patch_embed.fusion_model.") for name in weights)
    for audio_model, width in WIDTHS.items():
        if patches is not None and len(patches) == width:
            return audio_model, fused
    raise CheckpointError(
        f"{path}: its audio model is neither HTSAT-tiny nor HTSAT-base, the two read here"
    )


def _check_bands(weights: dict[str, Tensor], filter_bank: Tensor, path: Path) -> None:
    theirs = weights.get("audio_branch.logmel_extractor.melW", filter_bank)  # (bins, M)
    same_shape = theirs.shape == filter_bank.shape
    if not same_shape or not torch.allclose(theirs.float(), filter_bank, atol=1e-5):
        raise CheckpointError(
            f"{path}: has other mel bands than published CLAP (64 from 50 Hz to 14 kHz); "
            "give a published file"
        )


def _build_htsat(audio_model: str, enable_fusion: bool) -> Any:
    """laion-clap's HTSAT with random weights, without its front end."""
    spec = find_spec("laion_clap")  # does not run the package, which would load three tokenizers
    # A folder of this name without the package, such as that of a git clone, has no origin.
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            'the encoder laion_clap needs the package laion-clap: pip install "dac-diffusion'
            '[laion-clap]", best in an environment of its own (tests/README.md); the encoder '
            "htsat takes the same models in transformers' form without it"
        )
    folder = spec.submodule_search_locations[0]
    sys.path.append(folder)  # from where the package, too, imports its parts
    try:
        sizes = import_module("clap_module.model").CLAPAudioCfp(
            model_type="HTSAT", model_name=audio_model.removeprefix("HTSAT-"), hop_size=480
        )
        create = import_module("clap_module.htsat").create_htsat_model
    except Exception as error:  # versions of torch and torchvision that do not fit, and the like
        reason = " ".join(str(error).split())[:160]
        raise MissingExtraError(
            f"laion-clap is installed but cannot be imported ({type(error).__name__}: {reason}); "
            "tests/README.md names versions that fit each other"
        ) from error
    finally:
        sys.path.remove(folder)
    htsat = create(sizes, enable_fusion, "aff_2d" if enable_fusion else "None")
    del htsat.spectrogram_extractor, htsat.logmel_extractor
    return htsat
