"""The published autoregressive systems, trained from their tiny configs and captioning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.encoders.mel_patches import MelPatchEncoder
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.systems import load_captioner
from dac_diffusion.training.run import train
from tests.helpers import RATE, noise

CONFIGS = Path(__file__).parents[2] / "configs/tiny"
SMALL = (
    "training_scenes=8",
    "validation_scenes=4",
    "soundscapes.shortest_seconds=2.0",
    "soundscapes.longest_seconds=3.0",
    "encoder_loop.max_steps=2",
    "captioner_training.clips_per_batch=4",
    "captioner_training.evaluation_clips=2",
    "scorer.batch_size=4",
    "max_steps=2",
)
RVQ = ("codec.name=rvq", "codec.num_codebooks=2", "codec.codebook_size=8", "codec.fitting.steps=3")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


def trained(name: str, folder: Path, scenes: Path, *more: str) -> AutoregressiveCaptioner:
    overrides = [*SMALL, f"cache_dir={scenes}", f"output_dir={folder}", *more]
    train(CONFIGS / f"{name}.yaml", overrides, progress=False)
    captioner = load_captioner(folder, "float32")
    assert isinstance(captioner, AutoregressiveCaptioner)
    return captioner


@pytest.mark.parametrize(
    "name", ["enclap", "enclap_plus_plus", "clap_art", "ced_llama", "ced_bart"]
)
def test_a_tiny_config_trains_and_captions(name: str, tmp_path: Path, scenes: Path) -> None:
    captioner = trained(name, tmp_path, scenes)
    sounds = [(noise(seconds, seed), RATE) for seconds, seed in ((1.0, 1), (2.3, 2), (0.4, 3))]
    together = captioner(sounds, num_captions=2, num_candidates=3)
    for sound, result in zip(sounds, together, strict=True):
        assert result.error is None
        assert len({caption.text for caption in result.captions}) == 2
        alone = captioner(*sound, num_captions=2, num_candidates=3)
        assert [c.text for c in alone.captions] == [c.text for c in result.captions]


def test_a_run_goes_on_where_it_was(tmp_path: Path, scenes: Path) -> None:
    """With everything that was made before its own training used again."""
    whole = trained("clap_art", tmp_path / "whole", scenes)
    trained("clap_art", tmp_path / "parts", scenes, "max_steps=1")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("code_encoder-*/*")}
    parts = trained("clap_art", tmp_path / "parts", scenes)
    assert made
    assert {path: path.stat().st_mtime_ns for path in made} == made
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, parts.network.state_dict()[name]), name


def test_codes_of_the_small_encoder_come_from_its_features_in_memory(
    tmp_path: Path, scenes: Path
) -> None:
    """Its vector is that of the same encoder, which runs once, and the codes fit the recording."""
    captioner = trained(
        "enclap", tmp_path, scenes, "encoder.name=small", "encoder.weights=null", *RVQ
    )
    encoder = captioner.encoder
    assert isinstance(encoder, CodeEncoder)
    assert encoder.sequence_encoder is None
    assert encoder.has_sequence_vector
    assert not (tmp_path / "features").exists()
    captioner(noise(1.0, 1), RATE, num_captions=1)
    assert load_saved_model(CodeEncoder, tmp_path / "model/encoder").num_codebooks == 2


def test_codes_of_the_spectrogram_with_the_small_encoders_vector(
    tmp_path: Path, scenes: Path
) -> None:
    more = ("encoder.name=small", "encoder.weights=null", "codec.features=mel", *RVQ)
    captioner = trained("enclap", tmp_path, scenes, *more)
    encoder = captioner.encoder
    assert isinstance(encoder.codec.encoder, MelPatchEncoder)
    waveform = torch.from_numpy(noise(2.0, 1))[None]
    audio = encoder(waveform, torch.tensor([waveform.shape[1]]))
    assert audio.features.shape == (1, 25, 2)
    own = encoder.sequence_encoder
    canvas = F.pad(waveform, (0, own.canvas_samples(waveform.shape[1]) - waveform.shape[1]))
    vector = own(canvas, torch.tensor([waveform.shape[1]])).pooled
    assert torch.allclose(audio.pooled, vector, atol=1e-5)


@pytest.mark.parametrize("name", ["autoregressive", "clap_art", "ced_llama", "ced_bart"])
def test_a_training_goes_on_from_another_captioner(name: str, tmp_path: Path, scenes: Path) -> None:
    """With its words and weights; steps of no size change nothing."""
    initial = trained(name, tmp_path / "first", scenes)
    folder = tmp_path / "first/model"
    encoder = {"autoregressive": ("encoder.pretrained=" + str(folder),)}.get(
        name,
        (
            f"encoder.name={'codes' if name == 'clap_art' else 'ced'}",
            f"encoder.weights={folder}/encoder",
        ),
    )
    still = ("loop.learning_rate=1e-12", "loop.weight_decay=0", "text.vocabulary_size=300")
    again = trained(
        name, tmp_path / "second", scenes, f"initial_model={folder}", "seed=5", *encoder, *still
    )
    assert again.tokenizer.get_vocab() == initial.tokenizer.get_vocab()
    for part in ("network", "projection"):
        before, after = (getattr(c, part).state_dict() for c in (initial, again))
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            assert torch.allclose(tensor, after[key], atol=1e-6), key


def test_another_kind_of_captioner_is_no_beginning(tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(CheckpointError, match="describes a DiffusionCaptioner"):
        trained("enclap", tmp_path, scenes, "initial_model=builtin")
    with pytest.raises(ConfigError, match="is a mbart, not a BART"):
        trained("enclap", tmp_path, scenes, "initial_model=builtin-autoregressive")


def test_without_the_sequence_vector(tmp_path: Path, scenes: Path) -> None:
    captioner = trained(
        "clap_art", tmp_path, scenes, "codec.sequence=none", "enclap.sequence_vector=false"
    )
    assert captioner.encoder.pooled_dim == 1
    assert not captioner.projection.config.sequence_vector
    captioner(noise(1.0, 1), RATE, num_captions=1)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("enclap", ["codec.weights=null"], "codec.weights: name the published weights of encodec"),
        (
            "enclap",
            ["text.latent_space=split_bert", "text.split_bert.bert=random"],
            "split_bert: only for system=diffusion",
        ),
    ],
)
def test_settings_that_do_not_fit(
    name: str, overrides: list[str], message: str, tmp_path: Path, scenes: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(name, tmp_path, scenes, *overrides)
