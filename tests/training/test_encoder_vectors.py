"""Scorers of encoders that are trained along with the captioner."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training import encoder_vectors, systems
from dac_diffusion.training.run import train
from tests.helpers import RATE, noise

CONFIG = Path(__file__).parents[2] / "configs/tiny/ced_llama.yaml"
SOUNDS = ("dog", "cat", "rain", "wind", "bell", "horn")
SMALL = (
    "captioner_training.clips_per_batch=4",
    "captioner_training.evaluation_clips=2",
    "scorer.batch_size=16",
    "scorer.dropout=0",
    "scorer_loop.max_steps=60",
    "scorer_loop.learning_rate=0.003",
    "scorer_loop.warmup_steps=5",
    "scorer_loop.num_workers=0",
    "loop.max_steps=3",
    "loop.evaluate_every=2",
    "loop.warmup_steps=1",
    "loop.num_workers=0",
    "loop.ema_decay=0",
)


def write_clotho(folder: Path, broken: bool = False) -> list[str]:
    """Six sounds in Clotho's layout, with the overrides that name them."""
    folder.mkdir()
    with open(folder / "clotho_captions_development.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", *(f"caption_{i}" for i in range(1, 6))])
        for seed, sound in enumerate(SOUNDS):
            rows.writerow([f"{sound}.wav", *(f"A {sound} is heard." for _ in range(5))])
            soundfile.write(folder / f"{sound}.wav", (1 + seed) * noise(1.0 + seed / 4, seed), RATE)
    if broken:
        (folder / "cat.wav").write_bytes(b"no sound")
    table = folder / "clotho_captions_development.csv"
    each = f"[{{name: clotho, captions: {table}, audio: {folder}}}]"
    return [f"data.training={each}", f"data.validation={each}"]


@torch.no_grad()
def pooled(encoder: Any, folder: Path) -> Tensor:
    """The vectors of the six sounds, each by itself."""
    vectors = []
    for sound in SOUNDS:
        waveform = torch.from_numpy(load_audio(folder / f"{sound}.wav", encoder.sampling_rate))
        canvas = torch.zeros(1, encoder.canvas_samples(len(waveform)))
        canvas[0, : len(waveform)] = waveform
        vectors.append(encoder(canvas, torch.tensor([len(waveform)])).pooled)
    return torch.cat(vectors)


@torch.no_grad()
def loss(captioner: AutoregressiveCaptioner, vectors: Tensor) -> float:
    """Cross-entropy of each sound's own caption among all, by the captioner's scorer."""
    scorer = captioner.scorer
    texts = [f"a {sound} is heard" for sound in SOUNDS]
    ids = encode_captions(captioner.tokenizer, texts, scorer.config.max_length)
    scale = scorer.logit_scale.exp().clamp(max=100.0)
    logits = scale * scorer.embed_audio(vectors) @ scorer.embed_text(ids).T
    return float(torch.nn.functional.cross_entropy(logits, torch.arange(len(SOUNDS))))


def changed_encoder(trainer: Any) -> None:
    """Adapters as after a long training, which leave little of the vectors as they were."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in trainer.encoder.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator))


def test_the_scorer_of_a_saved_captioner_was_trained_on_its_own_encoders_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_clotho(tmp_path / "data")
    make = systems.build_prefix_trainer

    def make_changed(*arguments: Any) -> Any:
        trainer = make(*arguments)
        changed_encoder(trainer)
        return trainer

    monkeypatch.setattr(systems, "build_prefix_trainer", make_changed)
    trained_on: dict[str, Tensor] = {}
    train_scorer = encoder_vectors.train_scorer

    def remember(config: Any, training: Any, validation: Any, *rest: Any) -> Any:
        trained_on[rest[-1].name] = training.pool.pooled
        return train_scorer(config, training, validation, *rest)

    monkeypatch.setattr(encoder_vectors, "train_scorer", remember)
    run = tmp_path / "run"
    train(CONFIG, [*SMALL, *data, f"output_dir={run}"], progress=False)
    stages = list(trained_on)  # of the encoder before, and of those of the two captioners
    assert 2 <= len(stages) <= 3
    assert {path.name for path in run.glob("scorer-*")} == set(stages)

    before = load_file(run / stages[0] / "model/diffusion_pytorch_model.safetensors")
    for name, stage in (("model", stages[1]), ("best_model", stages[-1])):
        captioner = AutoregressiveCaptioner.from_pretrained(run / name, "float32")
        vectors = pooled(captioner.encoder, tmp_path / "data")
        torch.testing.assert_close(trained_on[stage], vectors, rtol=0, atol=2e-5)
        assert (trained_on[stages[0]] - vectors).norm() > 0.1 * vectors.norm()
        own = load_file(run / stage / "model/diffusion_pytorch_model.safetensors")
        saved = captioner.scorer.state_dict()
        assert own.keys() == saved.keys()
        assert all(torch.equal(own[key], saved[key]) for key in own)
        right = loss(captioner, vectors)
        captioner.scorer.load_state_dict(before)
        assert right < 0.5
        assert loss(captioner, vectors) > right + 0.5
        # The scorer of the stage before was trained as well, on vectors of its time.
        assert loss(captioner, trained_on[stages[0]]) < 0.5

    # Given once more, the command trains nothing and leaves all as it is.
    files = {path: path.read_bytes() for path in (run / "model").rglob("*.safetensors")}
    trained_on.clear()
    train(CONFIG, [*SMALL, *data, f"output_dir={run}"], progress=False)
    assert list(trained_on) == stages
    assert {path: path.read_bytes() for path in files} == files


def test_recordings_that_cannot_be_decoded_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_clotho(tmp_path / "data", broken=True)
    small = ("loop.max_steps=1", "scorer_loop.max_steps=1", f"output_dir={tmp_path / 'run'}")
    with caplog.at_level(logging.WARNING, logger="dac_diffusion"):
        train(CONFIG, [*SMALL, *data, *small], progress=False)
    assert any("cat.wav" in record.getMessage() for record in caplog.records)
    for path in (tmp_path / "run").glob("scorer-*/training.safetensors"):
        assert load_file(path)["places"].tolist() == [0, 2, 3, 4, 5]
    assert not (tmp_path / "run/features").exists()
    for sound in SOUNDS:
        (tmp_path / "data" / f"{sound}.wav").write_bytes(b"")
    with pytest.raises(DataError, match="data: none of the recordings can be encoded"):
        train(CONFIG, [*SMALL, *data, f"output_dir={tmp_path / 'other'}"], progress=False)
    with pytest.raises(ConfigError, match=r"data\.validation: name at least one"):
        train(CONFIG, [*SMALL, data[0], f"output_dir={tmp_path / 'other'}"], progress=False)
