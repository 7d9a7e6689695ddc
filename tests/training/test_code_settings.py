"""Codes for a training: of scenes and of recordings, by codecs and by quantisers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.configuration import load_config
from dac_diffusion.encoders.base import weights_digest
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.training.codes import with_code_encoder
from dac_diffusion.training.run import train
from dac_diffusion.training.settings import TrainingConfig
from tests.autoregressive.language_model_folders import write_folder
from tests.helpers import RATE, noise
from tests.training.test_systems import CONFIGS, RVQ, SMALL, trained

ON_SCENES = ("encoder.name=small", "encoder.weights=null", *RVQ)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@torch.no_grad()
def cosine_of(captioner: AutoregressiveCaptioner, seed: int, text: str) -> float:
    """What the captioner's ranking makes of a text beside a sound."""
    waveform = torch.from_numpy(noise(1.0, seed))[None]
    pooled = captioner.encoder(waveform, torch.tensor([RATE])).pooled
    ids = torch.tensor(captioner.tokenizer([text])["input_ids"])
    scorer = captioner.scorer
    return float(scorer.embed_audio(pooled) @ scorer.embed_text(ids).T)


@pytest.mark.parametrize("kind", ["constant", "no slot", "published BART"])
def test_scenes_without_a_sequence_vector(kind: str, tmp_path: Path, scenes: Path) -> None:
    """As with recordings, the vector is constant, and the scorer is one of such vectors."""
    more = [] if kind == "constant" else ["enclap.sequence_vector=false"]
    if kind == "published BART":
        write_folder(tmp_path / "bart", "bart")
        more += [f"enclap.bart={tmp_path / 'bart'}", "enclap.max_codes=61"]
    run = tmp_path / "run"
    captioner = trained("enclap", run, scenes, *ON_SCENES, "codec.sequence=none", *more)
    assert captioner.encoder.pooled_dim == captioner.scorer.config.pooled_dim == 1
    assert captioner(noise(1.0, 1), RATE, num_captions=2, num_candidates=3).error is None
    assert cosine_of(captioner, 1, "a dog") == cosine_of(captioner, 2, "a dog")
    assert cosine_of(captioner, 1, "a dog") != cosine_of(captioner, 1, "rain falls")


def test_the_quantiser_is_one_of_the_encoder_as_it_is_now(tmp_path: Path, scenes: Path) -> None:
    """Which a longer run in the same folder trains on."""
    trained("enclap", tmp_path, scenes, *ON_SCENES, "max_steps=1")
    captioner = trained("enclap", tmp_path, scenes, *ON_SCENES)
    assert len(list(tmp_path.glob("quantizer-*"))) == 2
    codec = captioner.encoder.codec
    assert codec.quantizer.config.fitted_on["name"] == "small"
    assert codec.quantizer.config.fitted_on["weights_sha256"] == weights_digest(codec.encoder)


def test_an_encoder_whose_weights_were_exchanged_is_coded_anew(
    tmp_path: Path, scenes: Path
) -> None:
    """In a features_dir of its own; in the same one that is an error."""
    weights, path = tmp_path / "beats", CONFIGS / "clap_art.yaml"
    overrides = [*SMALL, f"cache_dir={scenes}", f"output_dir={tmp_path}"]
    overrides.append(f"encoder.weights={weights}")
    found = []
    for seed, features in ((0, "first"), (1, "second"), (1, "second")):
        random_encoder("beats", seed).save_pretrained(weights)
        folder = f"data.features_dir={tmp_path / features}"
        config = load_config(TrainingConfig, path, [*overrides, folder])
        found.append(with_code_encoder(config, False, True).encoder.weights)
    assert found[0] != found[1] == found[2]
    random_encoder("beats", 2).save_pretrained(weights)
    with pytest.raises(DataError, match="holds features of another encoder"):
        with_code_encoder(config, False, True)


def test_scenes_are_coded_in_full_precision(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the encoder of codes computes; features for other systems are in bfloat16."""
    import dac_diffusion.training.preparation as preparation

    asked: list[bool] = []
    load = preparation.load_or_encode_pool
    monkeypatch.setattr(
        preparation, "load_or_encode_pool", lambda *given: asked.append(given[5]) or load(*given)
    )
    trained("enclap", tmp_path / "codes", scenes, *ON_SCENES)
    assert asked == [False, False]
    trained("autoregressive", tmp_path / "features", scenes)
    assert asked == [False, False, True, True]


def test_the_window_of_scenes_is_the_configs(tmp_path: Path, scenes: Path) -> None:
    captioner = trained("enclap", tmp_path / "long", scenes, *ON_SCENES, "codec.window_seconds=4")
    assert captioner.encoder.window_seconds == 4.0
    with pytest.raises(ConfigError) as caught:
        trained("enclap", tmp_path / "short", scenes, *ON_SCENES, "codec.window_seconds=2")
    assert str(caught.value) == (
        "codec.window_seconds=2: built-in scenes of up to 3 s are heard whole; set it to 3 or "
        "more, or soundscapes.longest_seconds to less"
    )
    assert not (tmp_path / "short/encoder").exists()


@pytest.mark.parametrize(("name", "count"), [("encodec", 4), ("descript", 5)])
def test_an_untrained_codec_has_as_many_codebooks_as_asked_for(
    name: str, count: int, tmp_path: Path, scenes: Path
) -> None:
    more = (f"codec.name={name}", f"codec.num_codebooks={count}")
    captioner = trained("enclap", tmp_path, scenes, *more)
    assert captioner.encoder.num_codebooks == captioner.projection.config.num_codebooks == count


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["codec.num_codebooks=0"], "num_codebooks=0: EnCodec has 2, 4, 8, 16, 32"),
        (["codec.num_codebooks=3"], "num_codebooks=3: EnCodec has 2, 4, 8, 16, 32"),
        (
            ["codec.name=descript", "codec.num_codebooks=0"],
            "num_codebooks=0: this codec has 1 to 32",
        ),
        ([*ON_SCENES, "codec.num_codebooks=0"], "num_codebooks=0: must be at least 1"),
        (
            ["codec.features=mel"],
            "codec.features=mel: is for codec.name=rvq with the small encoder on built-in scenes; "
            "here set encoder.name=mel and encoder.weights=random instead",
        ),
    ],
)
def test_settings_that_make_no_codes(
    overrides: list[str], message: str, tmp_path: Path, scenes: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        trained("enclap", tmp_path, scenes, *overrides)
    assert str(caught.value) == message


def test_spectrograms_of_recordings_are_coded_by_the_encoder_of_that_name(
    tmp_path: Path, scenes: Path
) -> None:
    captioner = trained("enclap", tmp_path, scenes, "encoder.name=mel", *RVQ)
    assert captioner.encoder.codec.config.encoder_name == "mel"


@pytest.mark.parametrize("on_scenes", [True, False])
def test_what_each_codebook_leaves_is_told_and_kept(
    on_scenes: bool, tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, f"cache_dir={scenes}", f"output_dir={tmp_path}"]
    if on_scenes:
        train(CONFIGS / "enclap.yaml", [*overrides, *ON_SCENES])
        (path,) = tmp_path.glob("quantizer-*/config.json")
        left = json.loads(path.read_text())["variance_left"]
    else:
        train(CONFIGS / "clap_art.yaml", overrides)
        (path,) = tmp_path.glob("code_encoder-*/config.json")
        left = json.loads(path.read_text())["codec_config"]["quantizer_config"]["variance_left"]
    assert len(left) == (2 if on_scenes else 4)
    assert 1 > left[0] > left[-1] > 0
    said = ", ".join(f"{share:.1%}" for share in left)
    line = f"dac-diffusion: k-means: of the variance each codebook leaves {said}\n"
    assert capsys.readouterr().err.count(line) == 1
