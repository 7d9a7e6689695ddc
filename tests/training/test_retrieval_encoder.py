"""RECAP that hears one CLAP and looks captions up by another, trained at a tiny size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_runs import SMALL_SCENES

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.retrieval_prompt import prompts_of
from dac_diffusion.cli import main
from dac_diffusion.configuration import load_config
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.paired import PairedEncoder
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.retrieval.datastore import space_fingerprint
from dac_diffusion.systems import load_captioner
from dac_diffusion.training.run import train
from dac_diffusion.training.settings import TrainingConfig
from tests.helpers import noise, only_error
from tests.metrics.fabricated_models import save_clap

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = (
    *SMALL_SCENES,
    "max_steps=2",
)
RATE = 8000  # of the small CLAPs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP with fusion, one without, and a captioner trained with both."""
    folder = tmp_path_factory.mktemp("retrieval")
    save_clap(folder / "fused", fused=True, seed=1)
    save_clap(folder / "unfused", seed=2)
    trained(folder / "run", folder, two_claps(folder))
    return folder


def two_claps(folder: Path) -> list[str]:
    return [
        "encoder.name=htsat",
        f"encoder.weights={folder / 'fused'}",
        f"recap.retrieval_encoder={{name: htsat, weights: {folder / 'unfused'}}}",
        "recap.space=clap",
    ]


def trained(output: Path, folder: Path, overrides: Sequence[str]) -> None:
    more = [*SMALL, f"cache_dir={folder / 'scenes'}", f"output_dir={output}", *overrides]
    train(CONFIGS / "tiny/recap.yaml", more, progress=False)


def load(folder: Path) -> AutoregressiveCaptioner:
    captioner = load_captioner(folder, "float32")
    assert isinstance(captioner, AutoregressiveCaptioner)
    return captioner


def waveform(seconds: float, seed: int) -> np.ndarray:
    return noise(seconds, seed, RATE)


@torch.inference_mode()
def test_features_of_the_one_and_captions_found_by_the_other(folder: Path) -> None:
    captioner = load(folder / "run")
    encoder = captioner.encoder
    assert isinstance(encoder, PairedEncoder)
    hears = HtsatEncoder.from_published(folder / "fused")
    retrieves = HtsatEncoder.from_published(folder / "unfused")
    texts = ClapTextEncoder.from_published(folder / "unfused")
    assert captioner.config.retrieval_space == "clap"
    assert captioner.config.datastore_space == space_fingerprint(texts.model)
    assert captioner.datastore is not None
    prompts = []
    for seed in range(3):
        sound = torch.from_numpy(waveform(1.0, seed))[None], torch.tensor([RATE])
        audio = encoder(*sound)
        assert torch.equal(audio.features, hears(*sound).features)
        (found,) = captioner.datastore.search(retrieves(*sound).pooled, 3)
        prompts.append(captioner.prompts(audio))
        expected = prompts_of(captioner.tokenizer, [found.captions])
        assert prompts[-1] is not None
        assert prompts[-1].left == expected.left
        vectors = texts(found.captions)  # the datastore's are those of the same CLAP
        cosines = vectors @ retrieves(*sound).pooled[0]
        np.testing.assert_allclose(found.scores, cosines, atol=1e-5)


@torch.inference_mode()
def test_the_training_clips_were_cached_with_both(folder: Path) -> None:
    caches = sorted((folder / "run/features").iterdir())
    assert len(caches) == 2
    for place in caches:
        cache = FeatureCache.open(place)
        description = cache.encoder
        assert description["name"] == "paired"
        assert description["settings"]["features_config"]["clap_config"]["enable_fusion"] is True
        assert description["settings"]["vectors_config"]["clap_config"]["enable_fusion"] is False
    assert "validation" in place.name
    recording = folder / "scenes/validation" / cache.name(0)
    heard = torch.from_numpy(load_audio(recording, RATE)[:RATE].copy())[None]  # what they hear
    batch = cache.batch([0])
    for name, stored in (("fused", batch.features), ("unfused", batch.pooled)):
        audio = HtsatEncoder.from_published(folder / name)(heard, torch.tensor([RATE]))
        expected = audio.features.half().float() if name == "fused" else audio.pooled
        assert torch.equal(stored, expected)


def test_the_saved_captioner_captions_the_same(folder: Path, tmp_path: Path) -> None:
    captioner = load(folder / "run")
    sounds = [(waveform(seconds, seed), RATE) for seconds, seed in ((1.0, 1), (2.3, 2), (0.4, 3))]
    together = captioner(sounds, num_captions=2, num_candidates=3)
    captioner.save_pretrained(tmp_path)
    again = load(tmp_path)
    for sound, result in zip(sounds, together, strict=True):
        assert result.error is None
        assert len({caption.text for caption in result.captions}) == 2
        for other in (captioner, again):
            alone = other(*sound, num_captions=2, num_candidates=3)
            assert alone.captions == result.captions


def test_a_datastore_of_another_clap_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, wav, store = tmp_path / "table.csv", tmp_path / "noise.wav", tmp_path / "store"
    table.write_text("file_name,caption_1,caption_2\na.wav,a dog bark,the rain\nb.wav,roof,two\n")
    soundfile.write(wav, waveform(1.0, 1), RATE)
    model = str(folder / "run")
    prepare = ["prepare", "datastore", str(table), "--output", str(store), "--model", model]
    caption = ["caption", str(wav), "--quiet", "--datastore", str(store), "--model"]

    assert main([*prepare, "--quiet", "--clap", str(folder / "unfused")]) == 0
    assert main([*caption, model]) == 0
    capsys.readouterr()

    assert main([*prepare, "--clap", str(folder / "fused")]) == 1
    assert only_error(capsys) == (
        f"dac-diffusion: error: --clap {folder / 'fused'}: is not the CLAP that {model} retrieves "
        "by; give its recap.retrieval_encoder, or if it was trained without one, its encoder\n"
    )
    assert main(prepare) == 1
    assert f"--clap: {model} compares by CLAP's vectors; name the CLAP" in only_error(capsys)

    # One made for a captioner that retrieves by the CLAP that it hears.
    one = [f"encoder.weights={folder / 'fused'}", "encoder.name=htsat", "recap.space=clap"]
    trained(tmp_path / "one", folder, one)
    other = tmp_path / "one/model/datastore"
    caption[caption.index(str(store))] = str(other)
    assert main([*caption, str(tmp_path / "one")]) == 0
    capsys.readouterr()
    assert main([*caption, model]) == 1
    assert only_error(capsys).startswith(
        f"dac-diffusion: error: {other}: its vectors are of another joint audio-text space than "
        "this model's; "
    )
    with pytest.raises(DataError, match="of another joint audio-text space"):
        trained(tmp_path / "two", folder, [*two_claps(folder), f"recap.datastore={other}"])


def test_the_pair_is_made_once(folder: Path) -> None:
    run = folder / "run"
    made = {path: path.stat().st_mtime_ns for path in run.glob("paired_encoder-*/*")}
    assert len(made) == 2
    trained(run, folder, two_claps(folder))
    assert {path: path.stat().st_mtime_ns for path in run.glob("paired_encoder-*/*")} == made


def test_any_encoder_retrieves_in_the_space_of_the_scorer(folder: Path, tmp_path: Path) -> None:
    """The trained small one beside a random BEATs, on the built-in scenes."""
    second = "recap.retrieval_encoder={name: small, weights: builtin}"
    trained(tmp_path, folder, ["encoder.name=beats", "encoder.weights=random", second])
    captioner = load(tmp_path)
    assert captioner.config.retrieval_space == "scorer"
    builtin = load_captioner("builtin", "float32").encoder
    pair = captioner.encoder
    assert isinstance(pair, PairedEncoder)
    for name, tensor in builtin.state_dict().items():
        assert torch.equal(pair.vectors_encoder.state_dict()[name], tensor), name
    assert pair.pooled_dim == builtin.pooled_dim == captioner.scorer.config.pooled_dim
    assert pair.feature_dim == captioner.projection.config.audio_dim == 48
    assert captioner(noise(1.0, 1), 32000, num_captions=1).captions


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["retrieval_encoder={name: codes, weights: x}"], "name=codes: give an encoder of feat"),
        (["retrieval_encoder={name: htsat}"], "key 'recap.retrieval_encoder.weights' is missing"),
        (
            ["retrieval_encoder={name: beats, weights: x}", "recap.space=clap"],
            r"space=clap: needs retrieval_encoder\.name=htsat with the weights of a published CLAP",
        ),
        (
            ["retrieval_encoder={name: htsat, weights: random}", "recap.space=clap"],
            r"space=clap: needs retrieval_encoder\.name=htsat with the weights of a published CLAP",
        ),
        (["retrieval_encoder={name: panns, weights: x}"], "expects one of small, beats"),
    ],
)
def test_settings_that_make_no_sense(overrides: list[str], message: str) -> None:
    overrides = [overrides[0].replace("retrieval", "recap.retrieval", 1), *overrides[1:]]
    with pytest.raises(ConfigError, match=message):
        load_config(TrainingConfig, CONFIGS / "tiny/recap.yaml", overrides)


def test_the_published_config_names_both() -> None:
    config = load_config(TrainingConfig, CONFIGS / "recap.yaml")
    second = config.recap.retrieval_encoder
    assert second is not None
    assert (config.encoder.name, config.encoder.weights) == ("htsat", "laion/clap-htsat-fused")
    assert (second.name, second.weights) == ("htsat", "laion/clap-htsat-unfused")
    assert config.recap.space == "clap"
    assert load_config(TrainingConfig, CONFIGS / "tiny/recap.yaml").recap.retrieval_encoder is None
