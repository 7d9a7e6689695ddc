"""Frozen-encoder features of a pool of scenes, computed once, kept as float16 and on disk.

Or their codes: see `quantize_scenes`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.augmentation import AugmentationConfig, augment_log_mel
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.mel_patches import MelPatchEncoder
from dac_diffusion.files import atomic_write

MelEncoder = ConvolutionalEncoder | MelPatchEncoder  # scenes are kept as log-mel
BATCH_SIZE = 64


@dataclass(frozen=True)
class Hearings:
    """How often each scene is encoded: clean first, then augmented; without augmentation alike."""

    num_views: int = 1
    augmentation: AugmentationConfig | None = None
    seed: int = 0


@dataclass(frozen=True)
class SceneFeatures:
    """Features of N scenes heard V times: features (V, N, S, D), pooled (V, N, P), mask (N, S).

    features may be codes (V, N, S, C) of C codebooks, of an integer type.
    """

    features: Tensor
    pooled: Tensor
    mask: Tensor

    @property
    def num_views(self) -> int:
        """How many augmented hearings of each scene there are."""
        return len(self.features)

    def select(self, scenes: np.ndarray, views: np.ndarray) -> AudioFeatures:
        """Features of some scenes, each in one of its views, (B, S, D) float32 or codes long."""
        i, v = torch.from_numpy(scenes), torch.from_numpy(views)
        kind = torch.float32 if self.features.is_floating_point() else torch.long
        return AudioFeatures(self.features[v, i].to(kind), self.mask[i], self.pooled[v, i].float())


def load_or_encode_pool(
    folder: Path,
    encoder: MelEncoder,
    pool: ScenePool,
    hearings: Hearings,
    progress: bool = True,
    bfloat16: bool = True,
) -> SceneFeatures:
    """`encode_pool`, its result kept in `folder` under a name made of all that decides it."""
    digest = hashlib.sha256(repr((hearings, BATCH_SIZE)).encode())
    if not bfloat16:
        digest.update(b"float32")
    digest.update(np.ascontiguousarray(pool.num_samples).tobytes())
    digest.update(np.ascontiguousarray(pool.log_mel[:: max(1, len(pool) // 100)]).tobytes())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    path = folder / f"features-{digest.hexdigest()[:12]}.safetensors"
    if not path.exists():
        made = encode_pool(encoder, pool, hearings, progress, bfloat16)
        tensors = {"features": made.features, "pooled": made.pooled, "mask": made.mask}
        with atomic_write(path, "wb") as file:
            file.write(save(tensors))
    return SceneFeatures(**load_file(path))


@torch.inference_mode()
def encode_pool(
    encoder: MelEncoder,
    pool: ScenePool,
    hearings: Hearings,
    progress: bool = True,
    bfloat16: bool = True,
) -> SceneFeatures:
    """Encode every scene as often as `hearings` says.

    bfloat16: in which the encoder computes; else in float32, for codes. Of the built-in encoder's 8
    stages of 256 entries, 5.1 % of the codes made in bfloat16 are others than those of the sound
    itself, and 3.0 % of those made in float32; float16 changes next to none.
    """
    encoder.eval()
    frames = int(encoder.num_frames(torch.tensor(_total_samples(encoder, pool))))
    size, width = len(pool), encoder.feature_dim
    features = torch.zeros(hearings.num_views, size, frames, width, dtype=torch.float16)
    pooled = torch.zeros(hearings.num_views, size, encoder.pooled_dim, dtype=torch.float16)
    mask = torch.zeros(size, frames, dtype=torch.bool)
    bar = tqdm(total=hearings.num_views * size, desc="encoding scenes", disable=not progress)
    for view in range(hearings.num_views):
        generator = torch.Generator().manual_seed(hearings.seed * 1000 + view)
        for start in range(0, size, BATCH_SIZE):
            rows = slice(start, min(start + BATCH_SIZE, size))
            log_mel = torch.from_numpy(pool.log_mel[rows].astype(np.float32))
            if view > 0 and hearings.augmentation is not None:
                log_mel = augment_log_mel(log_mel, hearings.augmentation, generator)
            num_samples = torch.from_numpy(pool.num_samples[rows])
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                audio = encoder.encode_log_mel(log_mel, num_samples)
            features[view, rows] = audio.features[:, :frames].half()
            pooled[view, rows] = audio.pooled.half()
            mask[rows] = audio.mask[:, :frames]
            bar.update(len(log_mel))
    bar.close()
    return SceneFeatures(features, pooled, mask)


@torch.inference_mode()
def quantize_scenes(
    features: SceneFeatures, quantizer: ResidualQuantizer, progress: bool = True
) -> SceneFeatures:
    """The codes (V, N, S, C) of scenes by a quantiser fitted on such features; 0 behind a scene.

    Kept in 16 bits where these suffice. Raises ValueError for features of another width.
    """
    if features.features.shape[-1] != quantizer.feature_dim:
        raise ValueError(
            f"features of width {features.features.shape[-1]} do not fit a quantiser of width "
            f"{quantizer.feature_dim}"
        )
    kind = torch.int16 if quantizer.codebook_size <= 2**15 else torch.int32
    shape = (*features.features.shape[:-1], quantizer.num_codebooks)
    codes = torch.zeros(shape, dtype=kind)  # (V, N, S, C)
    bar = tqdm(total=shape[0] * shape[1], desc="coding scenes", disable=not progress)
    for view, found in zip(features.features, codes, strict=True):
        for start in range(0, shape[1], BATCH_SIZE):
            rows = slice(start, min(start + BATCH_SIZE, shape[1]))
            made = quantizer.codes(view[rows].to(quantizer.device)).cpu()  # (B, S, C)
            found[rows] = made.masked_fill(~features.mask[rows, :, None], 0).to(kind)
            bar.update(rows.stop - rows.start)
    bar.close()
    return SceneFeatures(codes, features.pooled, features.mask)


def real_frames(features: SceneFeatures, batch_frames: int, seed: int = 0) -> list[Tensor]:
    """The frames of all scenes in random order, in batches (R, D), to fit a quantiser on."""
    frames = features.features[:, features.mask].flatten(0, 1)  # (V * frames, D)
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed))
    return [frames[part] for part in order.split(batch_frames)]


def _total_samples(encoder: MelEncoder, pool: ScenePool) -> int:
    return (pool.log_mel.shape[1] - 1) * encoder.config.hop_length
