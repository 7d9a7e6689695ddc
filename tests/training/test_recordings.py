"""The paper's configs, end to end on fabricated recordings in the data sets' own layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch
from small_runs import SMALL_DAC

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from dac_diffusion.training.run import train
from tests.helpers import RATE, noise

CONFIGS = Path(__file__).parents[2] / "configs"
# Each of the paper's sizes made small; everything else is as the config says.
TINY = (
    "encoder.weights=random",
    "encoder.frequency_pooling=mean",
    *SMALL_DAC,
)
CAPTIONS = ("A dog barks", "rain falls, then wind blows", "birds sing", "a bell rings twice")


def write_audiocaps(folder: Path, name: str, count: int) -> None:
    audio = folder / f"data/audiocaps/{name}"
    audio.mkdir(parents=True)
    with open(folder / f"data/audiocaps/{name}.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        for i in range(count):
            youtube_id = f"{name[:3]}clip_{i:03d}"
            rows.writerow([i, youtube_id, 30, CAPTIONS[i % 4]])
            soundfile.write(audio / f"Y{youtube_id}.wav", noise(1.0 + 0.3 * i, i), RATE)


def write_wavcaps_and_audioset(folder: Path) -> None:
    tables, audio = folder / "data/wavcaps/json_files", folder / "data/wavcaps/audio"
    for source, name in (("SoundBible", "sb_final.json"), ("FreeSound", "fsd_final.json")):
        (tables / source).mkdir(parents=True)
        (audio / source).mkdir(parents=True)
        clips = [{"id": str(i), "caption": CAPTIONS[i], "duration": 1.5} for i in range(3)]
        content = {"num_captions_per_audio": 1, "data": clips}
        (tables / source / name).write_text(json.dumps(content))
        for i in range(3):
            soundfile.write(audio / source / f"{i}.flac", noise(1.5, i), RATE)
    own = folder / "data/audioset/audio"
    own.mkdir(parents=True)
    soundfile.write(own / "one.wav", noise(1.0, 9), RATE)
    (folder / "data/audioset/captions.csv").write_text("file_name,caption\none.wav,a horn\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with AudioCaps in the place where the configs look for it."""
    monkeypatch.chdir(tmp_path)
    write_audiocaps(tmp_path, "train", 5)
    write_audiocaps(tmp_path, "val", 2)
    return tmp_path


def caption(run: str) -> list[str]:
    captioner = DiffusionCaptioner.from_pretrained(run, "float32")
    result = captioner(noise(1.0), sampling_rate=RATE, num_captions=1, num_candidates=2)
    return [each.text for each in result.captions]


@pytest.mark.parametrize("row", ["beats_dit", "beats_uvit", "htsat_dit", "htsat_uvit"])
def test_the_papers_rows_train_and_caption(row: str, place: Path) -> None:
    small = [each for each in TINY if not (row.startswith("htsat") and "pooling" in each)]
    train(CONFIGS / f"dac/{row}.yaml", small, progress=False)
    captioner = DiffusionCaptioner.from_pretrained(f"runs/dac_{row}", "float32")
    assert captioner.config.num_steps == 17
    assert captioner.config.guidance_scale == 2.5
    captioner.scheduler.set_timesteps(17)
    assert captioner.scheduler.timesteps.tolist() == list(range(999, 38, -60))
    assert type(captioner.denoiser).__name__ == ("DiT" if "dit" in row else "UViT") + "Denoiser"
    first, second = caption(f"runs/dac_{row}"), caption(f"runs/dac_{row}")
    assert first == second


def test_pre_training_and_what_comes_after(place: Path) -> None:
    write_wavcaps_and_audioset(place)
    (place / "data/audiocaps/test.csv").write_text(
        "audiocap_id,youtube_id,start_time,caption\n7,abcdefghijk,0,a\n"
    )
    train(CONFIGS / "dac/beats_dit_pretraining.yaml", TINY, progress=False)
    features = sorted(
        path.name.rsplit("-", 1)[0] for path in (place / "data/features/beats").iterdir()
    )
    assert features == ["audiocaps-val", "plain-captions", "wavcaps-json_files"]
    # The same words, as with a real BERT; a random one would take them from other captions.
    bert = place / "bert"
    _save_random_bert(bert, place)
    known = [each for each in TINY if "split_bert.bert" not in each]
    known.append(f"text.split_bert.bert={bert}")
    run = ["output_dir=runs/first", *known]
    train(CONFIGS / "dac/beats_dit_pretraining.yaml", run, progress=False)
    second = ["initial_model=runs/first/model", "max_steps=1", "loop.learning_rate=1e-12"]
    train(CONFIGS / "dac/beats_dit_pretrained.yaml", [*known, *second], progress=False)
    weights = [
        DiffusionCaptioner.from_pretrained(name, "float32").denoiser.state_dict()
        for name in ("runs/first", "runs/dac_beats_dit_pretrained")
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-6, rtol=0)


def _save_random_bert(folder: Path, place: Path) -> None:
    """The random BERT of a run as a published folder."""
    from transformers import BertForMaskedLM

    from dac_diffusion.text.bert import random_bert
    from dac_diffusion.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([*CAPTIONS, "a horn"], 200)
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    bert = random_bert(tokenizer)
    config = bert.model.config
    config.vocab_size = len(tokenizer)
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_faults_of_the_data_are_warnings_and_the_rest_is_trained_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "data/audiocaps/train/Ytraclip_000.wav").write_bytes(b"no sound")
    (place / "data/audiocaps/train/Ytraclip_001.wav").unlink()
    train(CONFIGS / "dac/beats_dit.yaml", TINY, progress=False)
    warnings = capsys.readouterr().err
    assert "Ytraclip_000.wav" in warnings
    assert "traclip_001" in warnings
    assert "Traceback" not in warnings


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("encoder.weights=nowhere.pt", CheckpointError, "nowhere.pt: there is no such file"),
        ("encoder.weights=null", ConfigError, "encoder.weights: name the published weights"),
        ("encoder.name=laion_clap", ConfigError, "random: not possible for laion_clap"),
        ("data.validation=[]", ConfigError, "data.validation: name at least one"),
        ("data.training=[{name: audiocaps, captions: no.csv, audio: .}]", DataError, "no.csv"),
        ("text.split_bert.bert=no/such/bert", CheckpointError, "no/such/bert: there is no such"),
        ("text.split_bert.split_layer=9", ConfigError, "split_layer=9: this BERT has layers"),
        ("sampling.eta=0.5", ConfigError, "churn, renoise and eta exclude each other"),
        ("sampling.refined_share=2", ConfigError, "sampling.refined_share=2"),
        ("encoder.name=small", ConfigError, "encoder.pretrained: the small encoder is trained"),
    ],
)
def test_what_a_config_can_get_wrong(
    override: str, error: type[Exception], message: str, place: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        train(CONFIGS / "dac/beats_dit.yaml", [*TINY, override], progress=False)
    assert "\n" not in str(caught.value)


def test_recordings_with_the_small_encoder(place: Path) -> None:
    changes = ["encoder.name=small", "encoder.weights=null", "encoder.pretrained=builtin"]
    small = [each for each in TINY if not each.startswith("encoder.")]
    train(
        CONFIGS / "dac/beats_dit.yaml", [*small, *changes, "output_dir=runs/small"], progress=False
    )
    assert caption("runs/small") == caption("runs/small")


def test_a_stopped_run_goes_on_to_the_same_weights(place: Path) -> None:
    path = CONFIGS / "tiny/dac_paper.yaml"
    small = [
        "training_scenes=8",
        "validation_scenes=2",
        "soundscapes.longest_seconds=3.0",
        "soundscapes.shortest_seconds=2.0",
        "encoder.pretrained=builtin",
        "loop.checkpoint_every=2",
        "captioner_training.clips_per_batch=4",
        "captioner_training.evaluation_clips=2",
        "text.split_bert.head.steps=3",
        "scorer_loop.max_steps=2",
        "loop.max_steps=4",
    ]
    train(path, [*small, "output_dir=runs/once"], progress=False)
    train(path, [*small, "output_dir=runs/twice", "max_steps=2"], progress=False)
    train(path, [*small, "output_dir=runs/twice"], progress=False)
    once, twice = (
        DiffusionCaptioner.from_pretrained(f"runs/{name}", "float32") for name in ("once", "twice")
    )
    for part in ("denoiser", "latent_space", "scorer"):
        first, second = getattr(once, part).state_dict(), getattr(twice, part).state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
