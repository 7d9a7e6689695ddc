"""Trainings from captions alone in the space of a CLAP, and what a config can get wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from small_runs import SMALL_DAC
from text_only_runs import CONFIGS, no_audio, prepared_by, write_table

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from dac_diffusion.ranking.clap_similarity import ClapScorer
from dac_diffusion.training.caption_sources import CachedCaptions
from dac_diffusion.training.run import train
from dac_diffusion.training.text_only import JointAudio
from tests.helpers import RATE, noise
from tests.metrics.fabricated_models import save_clap

CLAP = CONFIGS / "dac/text_only_clap.yaml"


@pytest.fixture
def audiocaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Captions where the config for CLAP looks for them, a small CLAP, and small sizes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/audiocaps"
    folder.mkdir(parents=True)
    write_table(folder / "train.csv", ["A dog barks", "rain falls", "birds sing", "a bell rings"])
    write_table(folder / "val.csv", ["the dog barks", "rain"])
    save_clap(tmp_path / "clap")
    return [
        "encoder.weights=clap",
        *SMALL_DAC,
    ]


def test_with_clap_no_audio_is_needed(
    audiocaps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("dac_diffusion.encoders.htsat.HtsatEncoder.forward", no_audio)
        train(CLAP, audiocaps, progress=False)
    shutil.rmtree(tmp_path / "clap")
    captioner = DiffusionCaptioner.from_pretrained("runs/dac_text_only_clap", "float32")
    assert captioner.config.num_steps == 17
    assert captioner.encoder.config.encoder_name == "htsat"
    first, second = (captioner(noise(0.8), sampling_rate=RATE) for _ in range(2))
    assert first.captions == second.captions != ()


def test_with_clap_recordings_can_validate(audiocaps: list[str], tmp_path: Path) -> None:
    audio = tmp_path / "data/audiocaps/val"
    audio.mkdir()
    for i in range(2):
        soundfile.write(audio / f"Yclip_{i}.wav", noise(1.0, i), RATE)
    recordings = "{name: audiocaps, captions: data/audiocaps/val.csv, audio: data/audiocaps/val}"
    validation = [f"data.validation=[{recordings}]", "text_only.validation_captions=[]"]
    _, prepared = prepared_by(CLAP, [*audiocaps, *validation])
    assert isinstance(prepared.validation, JointAudio)
    assert isinstance(prepared.validation.source, CachedCaptions)
    heard, references = prepared.validation.first(5)
    assert references == [["the dog barks"], ["rain"]]
    encoder = load_encoder("htsat", tmp_path / "clap")
    for i in range(2):
        waveform = torch.from_numpy(load_audio(audio / f"Yclip_{i}.wav", 8000))[None]
        with torch.no_grad():
            vector = encoder(waveform, torch.tensor([waveform.shape[1]])).pooled[0]
        torch.testing.assert_close(heard.features[i, 0], vector * 8**0.5, rtol=0, atol=1e-4)
    assert "cider_d" in train(CLAP, [*audiocaps, *validation], progress=False).metrics


def test_clap_itself_can_rank(audiocaps: list[str], tmp_path: Path) -> None:
    train(CLAP, [*audiocaps, "scorer.clap=clap"], progress=False)
    assert not (tmp_path / "runs/dac_text_only_clap/scorer").exists()
    captioner = DiffusionCaptioner.from_pretrained("runs/dac_text_only_clap", "float32")
    assert type(captioner.scorer) is ClapScorer
    sound = noise(0.8, rate=8000)
    result = captioner(sound, sampling_rate=8000)
    assert result.captions
    waveform = torch.from_numpy(sound)[None]
    encoder = load_encoder("htsat", tmp_path / "clap")
    texts = ClapTextEncoder.from_published(tmp_path / "clap")
    with torch.no_grad():
        vector = encoder(waveform, torch.tensor([waveform.shape[1]])).pooled[0]
    for caption in result.captions:
        assert caption.parts.cosine == pytest.approx(
            float(texts([caption.text])[0] @ vector), abs=1e-4
        )


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("text_only.captions=[none.csv]", DataError, "none.csv: cannot be read as a CSV"),
        ("text_only.captions=[other.csv]", DataError, "other.csv: has neither Clotho's columns"),
        ("text_only.captions=[empty.csv]", DataError, "empty.csv: holds no captions; give a"),
        ("text_only.captions=[blank.csv]", DataError, "blank.csv: holds no captions; give a"),
        ("text_only.captions=[]", ConfigError, "text_only.captions: name at least one table"),
        ("text_only.validation_captions=[]", ConfigError, "validation_captions: name a table"),
        ("text_only.noise_variance=-1", ConfigError, "noise_variance=-1.0: must be finite and"),
        ("encoder.weights=nowhere", CheckpointError, "nowhere: there is no such folder; give"),
        ("encoder.weights=null", ConfigError, "encoder.weights=null: text_only needs a published"),
        ("encoder.weights=random", ConfigError, "weights=random: text_only needs.*name=small"),
        ("encoder.name=beats", ConfigError, "encoder.name=beats: has no text side"),
        (
            "data.training=[{name: audiocaps, captions: data/audiocaps/train.csv, audio: .}]",
            ConfigError,
            "data.training: text_only learns without audio; name the tables in",
        ),
    ],
)
def test_what_a_config_can_get_wrong(
    override: str,
    error: type[Exception],
    message: str,
    audiocaps: list[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "other.csv").write_text("sound,text\na.wav,a dog barks\n")
    (tmp_path / "empty.csv").write_text("file_name,caption_1\n")
    (tmp_path / "blank.csv").write_text("file_name,caption_1,caption_2\na.wav, ,!\nb.wav,,\n")
    with pytest.raises(error, match=message) as caught:
        train(CLAP, [*audiocaps, override], progress=False)
    assert "\n" not in str(caught.value)
