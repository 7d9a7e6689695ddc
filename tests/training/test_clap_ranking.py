"""Captioners that rank in the space of the CLAP that they hear with (scorer.clap)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL_SCENES

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.retrieval_prompt import prompts_of
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.loading import random_codec
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.configuration import load_config
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.encoders.paired import PairedEncoder
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.ranking.clap_similarity import ClapScorer
from dac_diffusion.retrieval.datastore import space_fingerprint
from dac_diffusion.systems import load_captioner
from dac_diffusion.training.clap_ranking import clap_scorer
from dac_diffusion.training.run import train
from dac_diffusion.training.settings import TrainingConfig
from tests.helpers import RATE, noise
from tests.laion_clap.make_hub_cache import write_byte_tokenizer
from tests.metrics.fabricated_models import laion_text_side, save_clap, save_like_laion

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = CONFIGS / "tiny/enclap_plus_plus.yaml"
SMALL = (
    *SMALL_SCENES,
    "loop.num_workers=0",
    "decoding.decoding=nucleus",
    "decoding.num_candidates=4",
    "decoding.audio_text_weight=0.6",
    "decoding.likelihood_weight=0.4",
    "decoding.error_threshold=0.9",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CLAPs, and a captioner like EnCLAP++ that hears and ranks by the first."""
    folder = tmp_path_factory.mktemp("clap_ranking")
    save_clap(folder / "clap", seed=1)
    save_clap(folder / "other", seed=2)
    trained(folder / "run", folder, *by_htsat(folder), "max_steps=2")
    return folder


def by_htsat(folder: Path) -> list[str]:
    return ["encoder.name=htsat", f"encoder.weights={folder / 'clap'}"]


def trained(
    output: Path, folder: Path, *overrides: str, config: Path = TINY
) -> AutoregressiveCaptioner:
    shared = [f"cache_dir={folder / 'scenes'}", f"data.features_dir={folder / 'features'}"]
    own = [f"scorer.clap={folder / 'clap'}", f"output_dir={output}"]
    train(config, [*SMALL, *shared, *own, *overrides], progress=False)
    captioner = load_captioner(output, "float32")
    assert isinstance(captioner, AutoregressiveCaptioner)
    return captioner


def config_with(*overrides: str) -> TrainingConfig:
    return load_config(TrainingConfig, TINY, overrides)


@torch.inference_mode()
def test_captions_are_ranked_by_the_clap_that_was_heard(folder: Path) -> None:
    captioner = load_captioner(folder / "run", "float32")
    assert type(captioner.scorer) is ClapScorer
    assert not list((folder / "run").glob("scorer*"))  # none was trained
    rate = captioner.encoder.sampling_rate
    sounds = [noise(0.9, 1, rate), noise(1.6, 2, rate)]
    together = captioner([(sound, rate) for sound in sounds], num_captions=2, num_candidates=4)
    encoder = HtsatEncoder.from_published(folder / "clap")
    texts = ClapTextEncoder.from_published(folder / "clap")
    for sound, result in zip(sounds, together, strict=True):
        assert result.error is None
        alone = captioner(sound, rate, num_captions=2, num_candidates=4)
        assert alone.captions == result.captions
        waveform = torch.from_numpy(sound)[None]
        pooled = captioner.encoder(waveform, torch.tensor([len(sound)])).pooled[0]
        for caption in result.captions:
            assert caption.parts is not None
            cosine = float(texts([caption.text])[0] @ pooled / pooled.norm())
            assert caption.parts.cosine == pytest.approx(cosine, abs=1e-5)
            expected = 0.6 * cosine + 0.4 * (caption.parts.log_likelihood or 0.0)
            assert caption.score == pytest.approx(expected, abs=1e-5)
    own = captioner.encoder.sequence_encoder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in encoder.state_dict().items())


def test_a_run_goes_on_and_a_second_stage_begins_with_it(folder: Path, tmp_path: Path) -> None:
    trained(tmp_path / "parts", folder, *by_htsat(folder), "max_steps=1")
    trained(tmp_path / "parts", folder, *by_htsat(folder), "max_steps=2")
    for file in (folder / "run/model").glob("*/*.safetensors"):
        whole, parts = (
            load_file(file),
            load_file(tmp_path / "parts" / file.relative_to(folder / "run")),
        )
        assert whole.keys() == parts.keys()
        assert all(torch.equal(value, parts[name]) for name, value in whole.items()), file
    first = folder / "run/model"
    second = trained(
        tmp_path / "second",
        folder,
        "max_steps=1",
        f"initial_model={first}",
        "encoder.name=codes",
        f"encoder.weights={first / 'encoder'}",
    )
    before = load_captioner(first, "float32").scorer
    words, tokenizer = ["a dog bark", "rain on the roof"], second.tokenizer
    vectors = before.embed_captions(words, tokenizer)
    assert torch.equal(second.scorer.embed_captions(words, tokenizer), vectors)
    assert second(noise(1.0), RATE, num_captions=1).captions


def test_captions_are_looked_up_in_its_space(folder: Path, tmp_path: Path) -> None:
    """RECAP with recap.space=scorer: the datastore has the vectors that rank."""
    recap, own = CONFIGS / "tiny/recap.yaml", [f"data.features_dir={tmp_path / 'features'}"]
    captioner = trained(tmp_path, folder, *by_htsat(folder), *own, "max_steps=1", config=recap)
    datastore, scorer = captioner.datastore, captioner.scorer
    assert datastore is not None
    assert captioner.config.retrieval_space == "scorer"
    assert datastore.space == space_fingerprint(scorer)
    sound = torch.from_numpy(noise(1.0, 1, 8000))[None]
    with torch.no_grad():
        audio = captioner.encoder(sound, torch.tensor([8000]))
    (found,) = datastore.search(audio.pooled, 3)
    vectors = scorer.embed_captions(found.captions, captioner.tokenizer)
    torch.testing.assert_close(vectors @ audio.pooled[0], torch.tensor(found.scores))
    prompts = captioner.prompts(audio)
    assert prompts is not None
    assert prompts.left == prompts_of(captioner.tokenizer, [found.captions]).left
    assert captioner(sound[0].numpy(), 8000, num_captions=1).captions


def test_another_clap_is_refused_before_features_are_computed(folder: Path, tmp_path: Path) -> None:
    wrong = f"scorer.clap={folder / 'other'}"
    new = [f"data.features_dir={tmp_path / 'features'}", f"cache_dir={tmp_path / 'scenes'}"]
    for encoder in (
        by_htsat(folder),
        ["encoder.name=codes", f"encoder.weights={folder / 'run/model/encoder'}"],
    ):
        with pytest.raises(ConfigError, match="other: is not the CLAP that the clips' vectors are"):
            trained(tmp_path / "run", folder, *encoder, *new, wrong)
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "scenes").exists()


def encoders_with(vectors: Any) -> list[Any]:
    """Encoders that have their vectors from another."""
    codec = random_codec("encodec")
    quantizer = ResidualQuantizer(vectors.feature_dim, 2, 8)
    quantized = QuantizedEncoder.from_parts(vectors, quantizer)
    return [
        CodeEncoder.from_parts(codec, vectors),
        CodeEncoder.from_parts(quantized, vectors),  # which holds it once
        PairedEncoder.from_parts(random_encoder("beats"), vectors),
    ]


def test_the_vectors_may_come_from_inside_of_another_encoder(folder: Path) -> None:
    clap = HtsatEncoder.from_published(folder / "clap")
    right = config_with(*by_htsat(folder), f"scorer.clap={folder / 'clap'}")
    wrong = config_with(*by_htsat(folder), f"scorer.clap={folder / 'other'}")
    for encoder in (clap, JointEmbeddingEncoder.from_encoder(clap), *encoders_with(clap)):
        assert type(clap_scorer(right, encoder)) is ClapScorer
        with pytest.raises(ConfigError, match="is not the CLAP"):
            clap_scorer(wrong, encoder)
    assert type(clap_scorer(right, clap.half().float())) is ClapScorer  # once rounded
    with pytest.raises(ConfigError, match="its vectors have 8 numbers, those of the clips 32; nam"):
        clap_scorer(right, random_encoder("htsat"))
    for encoder in (random_encoder("beats"), *encoders_with(random_encoder("beats"))):
        with pytest.raises(
            ConfigError, match="vectors are from BeatsEncoder; have them made by ht"
        ):
            clap_scorer(right, encoder)
    with pytest.raises(ConfigError, match="vectors are from no encoder; have them made by htsat"):
        clap_scorer(right, CodeEncoder.from_parts(random_codec("encodec")))


def test_a_laion_file_is_compared_under_its_own_names(folder: Path, tmp_path: Path) -> None:
    """With the same weights in transformers' form, which laion-clap is not needed for."""
    encoder = HtsatEncoder.from_published(folder / "clap")
    words = write_byte_tokenizer(tmp_path, "RobertaTokenizer")
    names = {"linear1": "0", "linear2": "2"}
    ends = {
        f"audio_projection.{names[layer]}.{kind}": getattr(getattr(own, layer), kind).detach()
        for own in (encoder.clap.audio_projection,)
        for layer in names
        for kind in ("weight", "bias")
    }
    weights = {"audio_branch.conv.weight": torch.zeros(2), **laion_text_side(words).state_dict()}
    save_like_laion(tmp_path / "same.pt", {**weights, **ends})
    ends["audio_projection.2.bias"] = ends["audio_projection.2.bias"] + 0.1
    save_like_laion(tmp_path / "other.pt", {**weights, **ends})

    def config(name: str) -> TrainingConfig:
        own = [f"scorer.clap={tmp_path / name}", f"scorer.clap_tokenizer={tmp_path}"]
        return config_with(*by_htsat(folder), *own)

    scorer = clap_scorer(config("same.pt"), encoder)
    assert scorer.config.max_tokens == 77
    assert scorer.embed_captions(["rain"], None).shape == (1, 8)
    with pytest.raises(ConfigError, match=r"other\.pt: is not the CLAP"):
        clap_scorer(config("other.pt"), encoder)
    with pytest.raises(CheckpointError, match=r"none\.pt: there is no such file"):
        clap_scorer(config("none.pt"), encoder)


RECAP = "system=recap"
CODES = "encoder={name: codes, weights: x}"


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        (["encoder.name=beats"], "beats"),
        (["encoder.name=small"], "small"),
        (["codec.sequence=none"], r"no encoder \(codec\.sequence=none\)"),
        (["codec.sequence=sequence_encoder", "codec.sequence_encoder.name=ced"], "ced"),
        ([RECAP, "recap.retrieval_encoder={name: small, weights: builtin}"], "small"),
        ([RECAP, "encoder.name=mel"], "mel"),
    ],
)
def test_vectors_of_no_clap_are_refused_at_once(overrides: Sequence[str], source: str) -> None:
    message = rf"^[^\n]*scorer\.clap=x: compares captions with CLAP's .* are from {source}; have"
    with pytest.raises(ConfigError, match=message):
        config_with("scorer.clap=x", *overrides)
    assert config_with(*overrides).scorer.clap is None


@pytest.mark.parametrize(
    "overrides",
    [
        [],  # htsat
        ["encoder.name=laion_clap"],
        [CODES],
        [CODES, "codec.sequence=none"],  # which is of codes to be made only
        ["codec.sequence=sequence_encoder", "codec.sequence_encoder.name=htsat"],
        [RECAP, "encoder.name=beats", "recap.retrieval_encoder={name: htsat, weights: x}"],
    ],
)
def test_what_may_be_clap_is_looked_at_later(overrides: Sequence[str]) -> None:
    assert config_with("scorer.clap=x", *overrides).scorer.clap == "x"


def test_an_encoder_that_changes_is_refused() -> None:
    changing = ["system=prefix", "prefix.train_encoder=true"]
    with pytest.raises(
        ConfigError, match=r"scorer\.clap: prefix\.train_encoder changes the clips'"
    ):
        config_with("scorer.clap=x", *changing)


@pytest.mark.parametrize("name", ["enclap_plus_plus", "enclap_plus_plus_clotho"])
def test_the_published_configs_rank_by_the_clap_they_hear(name: str) -> None:
    config = load_config(TrainingConfig, CONFIGS / f"{name}.yaml")
    heard = load_config(TrainingConfig, CONFIGS / "enclap_plus_plus.yaml").encoder
    assert (heard.name, heard.weights) == ("laion_clap", config.scorer.clap)
    assert load_config(TrainingConfig, CONFIGS / "enclap.yaml").scorer.clap is None
