"""The published autoregressive systems, trained from their tiny configs and captioning."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
import torch.nn.functional as F
from small_runs import SMALL_SCENES

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.cli import main
from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.encoders.mel_patches import MelPatchEncoder
from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from dac_diffusion.retrieval.datastore import CaptionDatastore
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.systems import load_captioner
from dac_diffusion.training.run import train
from tests.encoders.published_layouts import TINY_TOKENIZER, save_beats, tokenizer_weights
from tests.helpers import RATE, noise

CONFIGS = Path(__file__).parents[2] / "configs/tiny"
SMALL = (
    *SMALL_SCENES,
    "encoder_loop.max_steps=2",
    "max_steps=2",
)
RVQ = (
    "codec.name=rvq",
    "codec.weights=null",
    "codec.num_codebooks=2",
    "codec.codebook_size=8",
    "codec.fitting.steps=3",
)
TOKENIZER = ("codec.name=beats_tokenizer", "codec.weights=random", "codec.num_codebooks=1")


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
    "name", ["enclap", "enclap_plus_plus", "clap_art", "ced_llama", "ced_bart", "recap"]
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


@pytest.mark.parametrize("name", ["autoregressive", "clap_art", "ced_llama", "ced_bart", "recap"])
def test_a_training_goes_on_from_another_captioner(name: str, tmp_path: Path, scenes: Path) -> None:
    """With its words and weights; steps of no size change nothing."""
    initial = trained(name, tmp_path / "first", scenes)
    folder = tmp_path / "first/model"
    trained_here = name in ("autoregressive", "recap")
    encoder = {True: ("encoder.pretrained=" + str(folder),)}.get(
        trained_here,
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


def test_the_codes_of_beats_own_tokenizer(tmp_path: Path, scenes: Path) -> None:
    """With the weights of its file, and no k-means."""
    path = save_beats(tmp_path / "tokenizer.pt", TINY_TOKENIZER, tokenizer_weights())
    more = (*TOKENIZER, f"codec.weights={path}", "codec.codebook_size=24")
    captioner = trained("clap_art", tmp_path / "run", scenes, *more)
    encoder = captioner.encoder
    assert isinstance(encoder.codec, BeatsTokenizer)
    assert (encoder.num_codebooks, encoder.codebook_size) == (1, 24)
    published = BeatsTokenizer.from_published(path).state_dict()
    for name, tensor in encoder.codec.state_dict().items():
        assert torch.equal(tensor, published[name]), name
    assert captioner.projection.config.num_codebooks == 1
    # No features of training clips were computed for a k-means.
    assert not list((tmp_path / "run/features").glob("*-20"))
    sounds = [(noise(seconds, seed), RATE) for seconds, seed in ((1.0, 1), (2.3, 2))]
    together = captioner(sounds, num_captions=1)
    for sound, result in zip(sounds, together, strict=True):
        alone = captioner(*sound, num_captions=1)
        assert [c.text for c in alone.captions] == [c.text for c in result.captions]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("enclap", ["codec.weights=null"], "codec.weights: name the published weights of encodec"),
        (
            "clap_art",
            [*TOKENIZER, "codec.num_codebooks=2"],
            r"codec\.num_codebooks=2: a BEATs tokenizer has one; set it to 1",
        ),
        (
            "clap_art",
            [*TOKENIZER, "codec.codebook_size=1024"],
            r"codec\.codebook_size=1024: the codebook of random has 32 entries; set it to that",
        ),
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


def test_recap_looks_up_captions_in_another_datastore_without_training(
    tmp_path: Path, scenes: Path
) -> None:
    captioner = trained("recap", tmp_path, scenes)
    assert captioner.datastore is not None
    audio = captioner.encoder(torch.randn(2, 80000), torch.tensor([80000, 60000]))
    prompts = captioner.prompts(audio)
    assert prompts is not None
    query = torch.ones(1, captioner.datastore.dimension)
    known = set(captioner.datastore.search(query, k=500)[0].captions)
    shown = captioner.tokenizer.decode(prompts.left[0]).split("[EOS]")
    assert len(shown) == 4  # three captions and what asks for one more
    assert {text.strip() for text in shown[:3]} <= known

    words = ["a bell rings", "wind blows"]
    vectors = captioner.scorer.embed_captions(words, captioner.tokenizer)
    CaptionDatastore.build(words, ["x", "y"], vectors, captioner.datastore.space).save(
        tmp_path / "other"
    )
    other = load_captioner(tmp_path, "float32", datastore=tmp_path / "other")
    assert isinstance(other, AutoregressiveCaptioner)
    left = other.prompts(audio)
    assert left is not None
    shown = other.tokenizer.decode(left.left[1]).split("[EOS]")
    assert sorted(text.strip() for text in shown[:2]) == words

    CaptionDatastore.build(words, ["x", "y"], vectors, "another space").save(tmp_path / "strange")
    with pytest.raises(DataError, match="space"):
        load_captioner(tmp_path, "float32", datastore=tmp_path / "strange")
    for model in ("builtin", "builtin-autoregressive"):
        with pytest.raises(ConfigError, match=f"{model} looks nothing up; leave it out"):
            load_captioner(model, datastore=tmp_path / "other")


def test_the_command_makes_a_datastore_for_a_captioner(
    tmp_path: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("recap", tmp_path, scenes)
    table = tmp_path / "captions.csv"
    table.write_text("file_name,caption_1,caption_2\na.wav,a dog barks,a dog\nb.wav,rain,wind\n")
    store, wav = tmp_path / "store", tmp_path / "noise.wav"
    command = ["prepare", "datastore", str(table), "--output", str(store), "--quiet", "--model"]
    assert main([*command, str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{store}: 4 captions\n"
    soundfile.write(wav, noise(1.0, 1), RATE)
    assert main(["caption", str(wav), "--model", str(tmp_path), "--datastore", str(store)]) == 0
    assert main([*command, "builtin-autoregressive"]) == 1
    assert "looks nothing up; give a RECAP captioner" in capsys.readouterr().err


def test_recap_without_its_datastore_says_so(tmp_path: Path, scenes: Path) -> None:
    captioner = trained("recap", tmp_path, scenes)
    captioner.datastore = None
    with pytest.raises(ConfigError, match="looks captions up; set its `datastore`"):
        captioner(noise(1.0, 1), RATE)


def test_claps_space_needs_a_published_clap(tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(ConfigError, match=r"recap\.space=clap: needs encoder\.name=htsat"):
        trained("recap", tmp_path, scenes, "recap.space=clap")
