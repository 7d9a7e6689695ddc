"""A captioner of real components, tiny and random, and recordings for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.plain import AudioProjection, AutoregressiveConfig, build_network
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.cli import main
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import train_tokenizer

CAPTIONS = [
    "a dog barks while rain falls in the background",
    "birds sing and a car passes by in the distance",
    "someone knocks on a wooden door, then footsteps follow",
]
RATE = 32000


def tiny_captioner(churn: float = 0.5, depth: int = 2) -> DiffusionCaptioner:
    """Random weights of full scale, so that its captions are many, different and nonsense."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 200)
    size = len(tokenizer)
    captioner = DiffusionCaptioner(
        encoder=ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2),
        denoiser=CaptionDenoiser(
            latent_dim=16, audio_dim=32, pooled_dim=32, width=32, depth=depth, heads=2, max_length=8
        ),
        latent_space=EmbeddingSpace(size, latent_dim=16, initial_std=1.0),
        tokenizer=tokenizer,
        scheduler=CaptionScheduler.from_schedule(NoiseSchedule.gumbel(), churn=churn),
        scorer=AudioTextScorer(size, pooled_dim=32, width=48, max_length=16),
        num_steps=3,
        num_candidates=6,
        likelihood_weight=0.2,
    )
    # Its output is zero at first; here it shall follow the noise, and the audio a little.
    torch.nn.init.normal_(captioner.denoiser.latent_out.weight, std=0.2)
    torch.nn.init.normal_(captioner.denoiser.self_condition_in.weight, std=0.1)
    with torch.no_grad():
        captioner.denoiser.modulation.table.add_(
            torch.randn_like(captioner.denoiser.modulation.table), alpha=0.3
        )
    for component in (captioner.encoder, captioner.denoiser, captioner.latent_space):
        component.eval()
    captioner.scorer.eval()
    torch.set_rng_state(generator_state)
    return captioner


def tiny_autoregressive() -> AutoregressiveCaptioner:
    """Random weights with large logits, so that its captions differ from clip to clip."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 200)
    config = AutoregressiveConfig(
        width=32, encoder_layers=1, decoder_layers=2, heads=2, feed_forward=64
    )
    network = build_network(config, len(tokenizer)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10.0)
    captioner = AutoregressiveCaptioner(
        encoder=ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2).eval(),
        projection=AudioProjection(32, 32, 32).eval(),
        network=network,
        tokenizer=tokenizer,
        scorer=AudioTextScorer(len(tokenizer), pooled_dim=32, width=48, max_length=16).eval(),
        max_length=8,
        num_candidates=6,
    )
    torch.set_rng_state(generator_state)
    return captioner


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A recording of white noise, (T,) float32."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    return samples.astype(np.float32)


def write_recordings(folder: Path, count: int, seconds: float = 1.0) -> list[Path]:
    """Files clip_0.wav, clip_1.wav, ... of different noise."""
    paths = []
    for index in range(count):
        path = folder / f"clip_{index}.wav"
        soundfile.write(path, noise(seconds, seed=index), RATE)
        paths.append(path)
    return paths


def caption_quickly(checkpoint: Path, *arguments: str | Path) -> int:
    """Run `dac-diffusion caption` as jsonl with one step and two captions; its exit code."""
    fast = ["--num-steps", "1", "--num-captions", "2", "--format", "jsonl"]
    return main(["caption", "--model", str(checkpoint), *fast, *map(str, arguments)])


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    """What was written to stderr, which must be one error line."""
    error = capsys.readouterr().err
    assert error.startswith("dac-diffusion: error: ")
    assert error.count("\n") == 1, error
    return error


class NoDoubles(torch.Tensor):
    """A tensor on a device without float64, such as Apple's, until .cpu() takes it away."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args).as_subclass(torch.Tensor)
        result = super().__torch_function__(func, types, args, kwargs)
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("this device has no float64")
        return result
