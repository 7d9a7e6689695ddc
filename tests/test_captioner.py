"""The captioner as a whole, with tiny random components."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

import dac_diffusion
from dac_diffusion.captioner import CaptionStep, ClipCaptions, DiffusionCaptioner
from dac_diffusion.errors import AudioError, ConfigError
from dac_diffusion.text.faults import is_well_formed
from dac_diffusion.text.tokenizer import encode_captions, normalise_caption
from tests.helpers import RATE, noise, tiny_captioner, write_recordings

SECONDS = [0.3, 1.0, 2.6, 1.7, 0.9, 5.2, 2.4, 1.1, 3.0, 0.6, 1.4]


@pytest.fixture(scope="module")
def captioner() -> DiffusionCaptioner:
    return tiny_captioner()


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [noise(seconds, seed=index) for index, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def alone(captioner: DiffusionCaptioner, clips: list[np.ndarray]) -> list[ClipCaptions]:
    return [single(captioner, clip) for clip in clips]


def single(captioner: DiffusionCaptioner, clip: np.ndarray) -> ClipCaptions:
    result = captioner(clip, sampling_rate=RATE)
    assert isinstance(result, ClipCaptions)
    return result


def content(clips: list[ClipCaptions]) -> list[tuple]:
    """All of the results but the names, which count up in a list."""
    return [(c.duration_seconds, c.captions, c.candidates, c.segments, c.error) for c in clips]


def test_captions_are_distinct_and_best_first(alone: list[ClipCaptions]) -> None:
    for clip in alone:
        assert len(clip.captions) == 5
        assert len({normalise_caption(caption.text) for caption in clip.captions}) == 5
        assert {caption.text for caption in clip.captions} <= set(clip.candidates)
        keys = [(is_well_formed(c.text), c.score) for c in clip.captions]
        assert all(first >= second for first, second in pairwise(keys))
        # A cosine, plus a weighted log-probability, which is below zero.
        assert all(caption.score <= 1.0001 for caption in clip.captions)
    # Not one clip's captions for all.
    assert len({clip.captions for clip in alone}) == len(alone)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_clip_is_the_same_bit_for_bit_in_every_batch(
    captioner: DiffusionCaptioner,
    clips: list[np.ndarray],
    alone: list[ClipCaptions],
    batch_size: int,
) -> None:
    pairs = [(clip, RATE) for clip in clips]
    together = captioner(pairs, batch_size=batch_size)
    assert content(together) == content(alone)
    backwards = captioner(pairs[::-1], batch_size=batch_size)
    assert content(backwards[::-1]) == content(alone)


def test_global_random_state_is_neither_used_nor_changed(
    captioner: DiffusionCaptioner, clips: list[np.ndarray], alone: list[ClipCaptions]
) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert content([single(captioner, clips[1])]) == content(alone[1:2])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_changes_the_captions(
    captioner: DiffusionCaptioner, clips: list[np.ndarray], alone: list[ClipCaptions]
) -> None:
    assert captioner(clips[1], RATE, seed=1).candidates != alone[1].candidates


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("stock", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_stock_schedulers_and_guidance_keep_the_promise(
    clips: list[np.ndarray], stock: type, guidance_scale: float
) -> None:
    captioner = tiny_captioner()
    captioner.scheduler = stock.from_config(captioner.scheduler.config)
    pairs = [(clip, RATE) for clip in clips[:4]]
    together = captioner(pairs, num_steps=4, guidance_scale=guidance_scale)
    for pair, clip in zip(pairs, together, strict=True):
        one = captioner(pair, num_steps=4, guidance_scale=guidance_scale)
        assert content([one]) == content([clip])


def test_all_ways_to_pass_a_recording_agree(captioner: DiffusionCaptioner, tmp_path: Path) -> None:
    (path,) = write_recordings(tmp_path, 1)
    result = captioner(path)
    assert result.file_name == "clip_0.wav"
    assert result.duration_seconds == 1.0
    assert captioner(str(path)) == result
    assert captioner([path]) == [result]
    assert captioner(tmp_path) == [result]


def test_long_recordings_are_captioned_by_windows(captioner: DiffusionCaptioner) -> None:
    samples = noise(21.5)
    clip = captioner(samples, RATE)
    assert [(s.start, s.end) for s in clip.segments] == [(0.0, 10.0), (10.0, 21.5)]
    first = captioner(samples[: 10 * RATE], RATE)
    assert clip.segments[0].captions == first.captions
    assert clip.candidates[: len(first.candidates)] == first.candidates
    offered = {c.text for segment in clip.segments for c in segment.captions}
    assert len(clip.captions) == 5
    assert {c.text for c in clip.captions} <= offered


def test_whole_recordings_are_scored_by_their_weighted_mean() -> None:
    captioner = tiny_captioner()
    captioner.register_to_config(likelihood_weight=0.0)  # what remains is the cosine
    samples = noise(13.0)
    clip = captioner(samples, RATE)
    pooled = []
    for start, end in ((0, 10 * RATE), (10 * RATE, 13 * RATE)):
        length = captioner.encoder.canvas_samples(end - start)
        waveform = torch.zeros(1, length)
        waveform[0, : end - start] = torch.from_numpy(samples[start:end])
        with torch.inference_mode():
            pooled.append(captioner.encoder(waveform, torch.tensor([end - start])).pooled)
    with torch.inference_mode():
        audio = captioner.scorer.embed_audio((10 * pooled[0] + 3 * pooled[1]) / 13)
        for caption in clip.captions:
            ids = encode_captions(captioner.tokenizer, [caption.text], 14)
            text = captioner.scorer.embed_text(ids)
            assert caption.score == pytest.approx((audio @ text.T).item(), abs=1e-5)


def test_callback_sees_every_step_of_every_window(captioner: DiffusionCaptioner) -> None:
    seen: list[CaptionStep] = []
    clip = captioner(noise(13.0), RATE, callback=seen.append)
    assert [(s.start_seconds, s.step, s.num_steps) for s in seen] == [
        (start, step, 3) for start in (0.0, 10.0) for step in (1, 2, 3)
    ]
    assert {s.file_name for s in seen} == {"array 0"}
    assert clip.candidates == seen[2].texts + seen[5].texts


def test_results_arrive_in_order(captioner: DiffusionCaptioner, tmp_path: Path) -> None:
    paths: list[Path] = [*write_recordings(tmp_path, 5, seconds=0.2), tmp_path / "missing.wav"]
    seen: list[ClipCaptions] = []
    results = captioner(paths, batch_size=2, on_result=seen.append)
    assert seen == results
    assert [clip.error is None for clip in results] == [True] * 5 + [False]
    assert "missing.wav" in str(results[5].error)
    assert results[5].captions == ()


def test_a_single_recording_that_fails_raises(
    captioner: DiffusionCaptioner, tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        captioner(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="silent"):
        captioner(np.zeros(RATE, np.float32), RATE)


def test_more_captions_than_candidates_are_refused(captioner: DiffusionCaptioner) -> None:
    with pytest.raises(ConfigError, match="num_candidates=3"):
        captioner(noise(0.3), RATE, num_captions=4, num_candidates=3)
    assert len(captioner(noise(0.3), RATE, num_captions=8).candidates) >= 8


def test_a_saved_captioner_is_the_same(captioner: DiffusionCaptioner, tmp_path: Path) -> None:
    captioner.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    loaded = DiffusionCaptioner.from_pretrained(tmp_path, "float32")
    assert (loaded.config.num_steps, loaded.config.num_candidates) == (3, 6)
    assert loaded(noise(0.5), RATE) == captioner(noise(0.5), RATE)
    assert not any(module.training for module in loaded.components.values() if is_network(module))


def is_network(component: object) -> bool:
    return isinstance(component, torch.nn.Module)


def test_bfloat16_captions_and_keeps_the_promise(
    captioner: DiffusionCaptioner, clips: list[np.ndarray], tmp_path: Path
) -> None:
    captioner.save_pretrained(tmp_path)
    loaded = DiffusionCaptioner.from_pretrained(tmp_path, torch_dtype="bfloat16")
    assert loaded.denoiser.dtype == torch.bfloat16
    pairs = [(clip, RATE) for clip in clips[:4]]
    together = loaded(pairs)
    assert content(together) == content([loaded(pair) for pair in pairs])
    with pytest.raises(ConfigError, match="float16"):
        DiffusionCaptioner.from_pretrained(tmp_path, torch_dtype="float16x")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({}, torch.float32),
        (None, torch.float32),  # a torch that cannot say
    ],
)
def test_cpus_that_compute_in_bfloat16_get_it(
    capabilities: dict[str, bool] | None,
    expected: torch.dtype,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert DiffusionCaptioner.from_pretrained(checkpoint).denoiser.dtype == expected


def test_the_package_exports_the_captioner() -> None:
    assert dac_diffusion.DiffusionCaptioner is DiffusionCaptioner
    assert dac_diffusion.__version__
    with pytest.raises(AttributeError, match="Captioneer"):
        dac_diffusion.Captioneer  # noqa: B018
