"""A captioner of the paper's parts, tiny and random: saved, loaded, alone and in a batch."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.cli import main
from dac_diffusion.diffusion.dit import DiTDenoiser
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.diffusion.uvit import UViTDenoiser
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.bert import load_bert
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.training.rounding_head import HeadTrainingConfig, train_head
from tests.helpers import caption_quickly, noise, write_recordings
from tests.text.tiny_masked_bert import write_masked_bert

CAPTIONS = ["a dog barks", "rain falls and then wind blows", "a dog barks and rain falls"]
LENGTH = 10


def paper_captioner(kind: type, folder: Path) -> DiffusionCaptioner:
    """Random weights of full scale, so that its captions differ and are nonsense."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_masked_bert(folder, scale=0.1)
        bert = load_bert(folder)
        space = SplitBertSpace.from_bert(bert, 4)
        space.fit_statistics(CAPTIONS, LENGTH)
        head = HeadTrainingConfig(steps=100, batch_size=16, learning_rate=1e-2)
        train_head(space, bert.tokenizer, CAPTIONS, LENGTH, head, seed=0, progress=False)
        encoder = random_encoder("beats")
        sizes = (16, encoder.feature_dim, encoder.pooled_dim)
        denoiser = kind(*sizes, width=32, depth=1, heads=2, max_length=LENGTH).eval()
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            denoiser.latent_in.weight.normal_()
            denoiser.latent_out.weight.normal_()
        return DiffusionCaptioner(
            encoder=encoder,
            denoiser=denoiser,
            latent_space=space,
            tokenizer=bert.tokenizer,
            scheduler=CaptionScheduler.from_schedule(
                NoiseSchedule.linear(), renoise=True, stride=60
            ),
            scorer=AudioTextScorer(
                len(bert.tokenizer), encoder.pooled_dim, 24, 1, max_length=LENGTH
            ).eval(),
            num_steps=17,
            num_candidates=6,
            guidance_scale=2.5,
        )


@pytest.fixture(scope="module", params=[DiTDenoiser, UViTDenoiser], ids=["dit", "uvit"])
def captioner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> DiffusionCaptioner:
    return paper_captioner(request.param, tmp_path_factory.mktemp("bert"))


def texts(result: object) -> list[str]:
    return [caption.text for caption in result.captions]  # type: ignore[attr-defined]


def test_a_recording_has_the_same_captions_alone_and_in_a_batch(
    captioner: DiffusionCaptioner, tmp_path: Path
) -> None:
    paths = write_recordings(tmp_path, 5)
    together = captioner(list(paths), num_captions=3, num_steps=3)
    assert len({text for result in together for text in texts(result)}) > 5
    for path, result in zip(paths, together, strict=True):
        alone = captioner(path, num_captions=3, num_steps=3)
        assert alone.captions == result.captions
    assert (
        captioner(paths[0], num_captions=3, num_steps=3, seed=1).candidates
        != together[0].candidates
    )


def test_saved_and_loaded_it_writes_the_same(captioner: DiffusionCaptioner, tmp_path: Path) -> None:
    captioner.save_pretrained(tmp_path / "model")
    sound = noise(1.2)
    expected = captioner(sound, sampling_rate=32000)
    loaded = DiffusionCaptioner.from_pretrained(tmp_path / "model", "float32")
    assert loaded(sound, sampling_rate=32000).captions == expected.captions
    assert loaded.config.num_steps == 17
    loaded.scheduler.set_timesteps(17)
    assert loaded.scheduler.timesteps.tolist() == list(range(999, 38, -60))
    with pytest.raises(ConfigError, match="loaded for captioning only"):
        loaded.latent_space.encode(torch.zeros(1, LENGTH, dtype=torch.long))
    half = DiffusionCaptioner.from_pretrained(tmp_path / "model", "bfloat16")
    assert half(sound, sampling_rate=32000).captions
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    assert loaded(sound, sampling_rate=32000, num_steps=4).captions


def test_no_caption_is_empty_or_begins_with_a_special_token(captioner: DiffusionCaptioner) -> None:
    result = captioner(noise(1.0), sampling_rate=32000, num_candidates=20, num_steps=2)
    assert all(text.strip() for text in result.candidates)
    assert not any("[" in text for text in result.candidates)


def test_collapsing_repeats_is_visible_everywhere(
    captioner: DiffusionCaptioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = captioner(noise(1.0), sampling_rate=32000, num_candidates=20)
    collapsed = captioner(noise(1.0), sampling_rate=32000, num_candidates=20, collapse_repeats=True)
    words = [sum(len(text.split()) for text in r.candidates) for r in (plain, collapsed)]
    assert plain.repeats_removed == 0
    assert collapsed.repeats_removed > 0
    assert any(
        first == second for text in plain.candidates for first, second in pairwise(text.split())
    )
    for text in collapsed.candidates:
        parts = text.split()
        assert all(first.lower() != second.lower() for first, second in pairwise(parts))
    assert words[1] < words[0]
    captioner.save_pretrained(tmp_path / "model")
    path = write_recordings(tmp_path, 1)[0]
    capsys.readouterr()
    assert caption_quickly(tmp_path / "model", path, "--num-candidates", "20",
                           "--collapse-repeats") == 0  # fmt: skip
    row = json.loads(capsys.readouterr().out)
    assert row["repeats_removed"] > 0
    command = ["caption", "--model", str(tmp_path / "model"), str(path), "--num-candidates", "20"]
    assert main([*command, "--collapse-repeats"]) == 0
    assert "repeated words taken out of the candidates" in capsys.readouterr().out
    assert main(command) == 0
    assert "taken out" not in capsys.readouterr().out


def test_refining_is_a_setting_of_the_call(captioner: DiffusionCaptioner) -> None:
    steps: list[tuple[int, int]] = []
    result = captioner(
        noise(1.0), sampling_rate=32000, num_steps=3, refined_share=0.5,
        callback=lambda step: steps.append((step.step, step.num_steps)),
    )  # fmt: skip
    assert steps[:6] == [(i + 1, 6) for i in range(6)]
    assert result.candidates != captioner(noise(1.0), sampling_rate=32000, num_steps=3).candidates
    with pytest.raises(ConfigError, match=r"refined_share=1\.0: must be 0 or more, and below 1"):
        captioner(noise(1.0), sampling_rate=32000, refined_share=1.0)
