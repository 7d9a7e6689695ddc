"""Training from captions alone: its batches, its parts, its configs, and that it works."""

from __future__ import annotations

import copy
import csv
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.configuration import load_config
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import decode_captions, encode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import BatchShape, CachedCaptions, FrozenParts
from dac_diffusion.training.captioner import (
    CaptionerTask,
    CaptionerTrainer,
    CaptionerTrainingConfig,
    SamplingConfig,
)
from dac_diffusion.training.loop import LoopConfig, fit
from dac_diffusion.training.preparation import Prepared, prepare
from dac_diffusion.training.run import diffusion_task, train
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.surroundings import make_accelerator
from dac_diffusion.training.text_only import (
    EmbeddedCaptions,
    JointAudio,
    TextOnlyCaptions,
    WithTextValidation,
    clap_space,
    embed_captions,
    read_tables,
    small_space,
)
from tests.helpers import RATE, noise
from tests.metrics.fabricated_models import save_clap

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = CONFIGS / "tiny/text_only.yaml"
SMALL = (
    "training_scenes=16",
    "validation_scenes=4",
    "soundscapes.shortest_seconds=2.0",
    "soundscapes.longest_seconds=3.0",
    "encoder_loop.max_steps=2",
    "captioner_training.clips_per_batch=4",
    "captioner_training.evaluation_clips=4",
    "sampling.num_steps=2",
    "loop.max_steps=2",
)
GROUPS = [
    ["a dog barks", "one dog is barking", "barking of a dog"],
    ["rain falls"],
    ["birds sing", "a dog barks"],
]
SIZE = 6
LENGTH = 12


def embed_toys(texts: Sequence[str]) -> Tensor:
    """Unit vectors that depend on the text alone."""
    rows = [
        torch.randn(SIZE, generator=torch.Generator().manual_seed(sum(map(ord, text))))
        for text in texts
    ]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([text for own in GROUPS for text in own], 200)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file keep the rendered scenes that they share."""
    return tmp_path_factory.mktemp("scenes")


def make_source(
    tokenizer: PreTrainedTokenizerFast, clips: int = 50, captions: int = 1, variance: float = 0.0
) -> TextOnlyCaptions:
    pool = embed_captions(GROUPS, embed_toys, progress=False)
    return TextOnlyCaptions(pool, tokenizer, BatchShape(clips, captions, LENGTH), 3, variance)


def write_table(path: Path, captions: Sequence[str]) -> Path:
    """A table in AudioCaps' columns, of recordings that are not there."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        for i, caption in enumerate(captions):
            rows.writerow([i, f"clip_{i}", 30, caption])
    return path


# --- Captions with their vectors ---


def test_every_text_is_embedded_once_and_keeps_its_vector() -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> Tensor:
        seen.extend(texts)
        return embed_toys(texts)

    pool = embed_captions(GROUPS, embed, progress=False)
    assert Counter(seen) == dict.fromkeys({text for own in GROUPS for text in own}, 1)
    for clip, own in enumerate(GROUPS):
        for number, text in enumerate(own):
            found = pool.select(np.array([clip]), np.array([number]))
            assert torch.equal(found, embed_toys([text]))


def test_a_caption_stands_behind_its_own_vector(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = make_source(tokenizer).batch(0, 0)
    assert batch.token_ids.shape == (50, 1, LENGTH)
    assert batch.audio.features.shape == (50, 1, SIZE)
    assert batch.audio.mask.all()
    assert torch.equal(batch.audio.features[:, 0], batch.audio.pooled)
    texts = decode_captions(tokenizer, batch.token_ids[:, 0])
    torch.testing.assert_close(batch.audio.pooled, embed_toys(texts) * SIZE**0.5)
    assert set(texts) == {text for own in GROUPS for text in own}
    # Clips are equally likely, not captions: the one of a single caption comes a third of the time.
    many = make_source(tokenizer, clips=3000).batch(0, 0)
    share = decode_captions(tokenizer, many.token_ids[:, 0]).count("rain falls") / 3000
    assert abs(share - 1 / 3) < 5 * math.sqrt(2 / 9 / 3000)


def test_a_vector_may_stand_for_the_clips_other_captions(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    batch = make_source(tokenizer, captions=2).batch(0, 0)
    assert batch.token_ids.shape == (50, 2, LENGTH)
    pairs = [decode_captions(tokenizer, ids) for ids in batch.token_ids]
    torch.testing.assert_close(
        batch.audio.pooled, embed_toys([pair[0] for pair in pairs]) * SIZE**0.5
    )
    for pair in pairs:
        assert any(set(pair) <= set(own) for own in GROUPS)
        assert (pair[0] == pair[1]) == (pair[0] == "rain falls")  # that clip has no other


@pytest.mark.parametrize("variance", [0.015, 0.3])
def test_the_noise_has_the_given_variance_in_every_element(
    variance: float, tokenizer: PreTrainedTokenizerFast
) -> None:
    count = 4000
    quiet = make_source(tokenizer, count).batch(7, 0)
    loud = make_source(tokenizer, count, variance=variance).batch(7, 0)
    assert torch.equal(quiet.token_ids, loud.token_ids)
    # In units of the unit vector: the features are sqrt(E) times as long.
    drawn = (loud.audio.pooled - quiet.audio.pooled).double() / SIZE**0.5  # (count, E)
    deviation = math.sqrt(variance)
    assert drawn.mean(dim=0).abs().max() < 5 * deviation / math.sqrt(count)
    error = (drawn.square().mean(dim=0) / variance - 1).abs()
    assert error.max() < 5 * math.sqrt(2 / count)
    within = (drawn.abs() < deviation).double().mean()
    assert abs(within - 0.6827) < 5 * math.sqrt(0.22 / (SIZE * count))  # Gaussian
    correlation = torch.corrcoef(drawn.T) - torch.eye(SIZE)
    assert correlation.abs().max() < 5 / math.sqrt(count)


def test_renormalised_vectors_have_unit_length_and_the_same_direction(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    source = make_source(tokenizer, variance=0.3)
    plain = source.batch(1, 0).audio.pooled
    again = replace(source, renormalise=True).batch(1, 0).audio.pooled
    torch.testing.assert_close(again.norm(dim=-1), torch.full((50,), SIZE**0.5))
    expected = plain / plain.norm(dim=-1, keepdim=True) * SIZE**0.5
    torch.testing.assert_close(again, expected)
    assert plain.norm(dim=-1).std() > 0.1


def test_a_batch_is_a_function_of_seed_step_and_rank(tokenizer: PreTrainedTokenizerFast) -> None:
    source = make_source(tokenizer, variance=0.015)
    first = source.batch(5, 0)
    source.batch(6, 0)
    torch.manual_seed(77)
    np.random.seed(77)
    for same in (source.batch(5, 0), make_source(tokenizer, variance=0.015).batch(5, 0)):
        assert torch.equal(same.token_ids, first.token_ids)
        assert torch.equal(same.audio.features, first.audio.features)
    for other in (source.batch(6, 0), source.batch(5, 1), replace(source, seed=4).batch(5, 0)):
        assert not torch.equal(other.token_ids, first.token_ids)
        assert not torch.equal(other.audio.features, first.audio.features)


def test_validation_clips_are_not_compared_with_the_caption_they_are_given(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    vectors, references = make_source(tokenizer, variance=0.3).first(9)
    assert references == [GROUPS[0][1:], GROUPS[1], GROUPS[2][1:]]
    firsts = embed_toys([own[0] for own in GROUPS])
    torch.testing.assert_close(vectors.pooled, firsts * SIZE**0.5)  # and without noise


# --- The two joint spaces ---


def test_the_small_space_is_that_of_encoder_and_scorer(parts: FrozenParts) -> None:
    encoder, scorer, tokenizer = parts.encoder.eval(), parts.scorer.eval(), parts.tokenizer
    space = small_space(parts)
    sounds = torch.stack([torch.from_numpy(noise(2.5, seed)) for seed in range(3)])
    lengths, texts = torch.tensor([80000, 50000, 80000]), ["a dog barks", "rain falls on a roof"]
    with torch.no_grad():
        plain = encoder(sounds, lengths).pooled
        joint = space.encoder(sounds, lengths).pooled
        audio = scorer.embed_audio(plain)
        text = scorer.embed_text(encode_captions(tokenizer, texts, scorer.config.max_length))
        torch.testing.assert_close(space.embed_pooled(plain), audio)
        torch.testing.assert_close(joint, audio * joint.shape[1] ** 0.5)
        torch.testing.assert_close(space.embed_texts(texts), text)
        # The saved captioner ranks by this scorer, which gets vectors of the joint space.
        assert space.scorer is not None
        torch.testing.assert_close(space.scorer.embed_audio(joint), audio, rtol=0, atol=1e-5)
        ids = encode_captions(tokenizer, texts, scorer.config.max_length)
        assert torch.equal(space.scorer.embed_text(ids), text)
        half = copy.deepcopy(space.scorer).bfloat16()
        cosine = (half.embed_audio(joint.bfloat16()) * audio).sum(dim=-1)
        assert cosine.min() > 0.999
    trained = [*space.encoder.parameters(), *space.scorer.parameters()]
    assert not any(parameter.requires_grad for parameter in trained)


def test_the_space_of_clap_is_that_of_its_two_sides(tmp_path: Path) -> None:
    save_clap(tmp_path)
    encoder = load_encoder("htsat", tmp_path)
    space = clap_space(encoder, tmp_path, "cpu")
    sound = torch.from_numpy(noise(1.0, rate=8000))[None]
    with torch.no_grad():
        pooled = encoder(sound, torch.tensor([8000])).pooled
        torch.testing.assert_close(space.embed_pooled(pooled), pooled)
        heard = space.encoder(sound, torch.tensor([8000]))
    torch.testing.assert_close(heard.pooled, pooled * 8**0.5)
    texts = ["a dog bark", "rain"]
    assert torch.equal(space.embed_texts(texts), ClapTextEncoder.from_published(tmp_path)(texts))
    assert space.scorer is None


# --- Whole trainings ---


def prepared_by(path: Path, overrides: Sequence[str]) -> tuple[TrainingConfig, Prepared]:
    config = load_config(TrainingConfig, path, overrides)
    return config, prepare(config, make_accelerator(), progress=False)


def captions_of(model: Path, sounds: Sequence[np.ndarray]) -> list[list[tuple[str, float]]]:
    captioner = DiffusionCaptioner.from_pretrained(model, "float32")
    pairs = [(sound, RATE) for sound in sounds]
    results = captioner(pairs, num_captions=2, num_candidates=3)
    assert isinstance(results, list)
    return [[(each.text, each.score) for each in result.captions] for result in results]


def test_the_tiny_config_makes_a_captioner_that_loads_elsewhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(TINY, [*SMALL, f"output_dir={run}"], progress=False)
    assert {"cider_d", "pad_rate"} <= set(result.metrics)
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 2.4, 0.7))]
    before = captions_of(run, sounds)
    shutil.copytree(run / "model", tmp_path / "elsewhere")
    shutil.rmtree(run)  # encoder, scorer and scenes are gone
    together = captions_of(tmp_path / "elsewhere", sounds)
    assert together == before
    for sound, own in zip(sounds, together, strict=True):
        assert captions_of(tmp_path / "elsewhere", [sound]) == [own]
    assert len({own[0][1] for own in together}) == 3  # no two sounds score alike
    captioner = DiffusionCaptioner.from_pretrained(tmp_path / "elsewhere", "float32")
    assert isinstance(captioner.encoder, JointEmbeddingEncoder)


def test_scenes_validate_by_their_sound_and_by_their_captions(tmp_path: Path, scenes: Path) -> None:
    overrides = [*SMALL, f"cache_dir={scenes}", f"output_dir={tmp_path / 'run'}"]
    config, prepared = prepared_by(TINY, overrides)
    assert isinstance(prepared.validation, JointAudio)
    assert prepared.validation_texts is not None
    heard, references = prepared.validation.first(4)
    read, others = prepared.validation_texts.first(4)
    assert heard.features.shape == read.features.shape == (4, 1, 256)
    assert [own[1:] for own in references] == others
    torch.testing.assert_close(heard.pooled.norm(dim=-1), torch.full((4,), 16.0))
    assert not torch.equal(heard.pooled, read.pooled)
    assert prepared.validation.batch(0, 0).audio.features.shape == (4, 1, 256)

    task = diffusion_task(config, prepared, progress=False)
    report = task.evaluate(0, task.model, None)
    both = WithTextValidation(task, prepared.validation_texts)
    assert both.evaluate(0, task.model, None).keys() - report.keys() == {"cider_d_from_text"}
    result = fit(both, replace(config.loop, num_workers=0), tmp_path / "both", progress=False)
    assert {"cider_d", "cider_d_from_text"} <= set(result.metrics)
    assert captions_of(tmp_path / "both", [noise(1.0)])


def no_audio(*arguments: object, **settings: object) -> None:
    raise AssertionError("audio was read")


def test_no_audio_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "dac_diffusion.audio.loading.load_audio",
        "dac_diffusion.data.feature_encoding.load_audio",
        "dac_diffusion.training.preparation.load_or_render_pool",
        "dac_diffusion.training.preparation.load_or_encode_pool",
        "dac_diffusion.training.recordings.read_dataset",
        "dac_diffusion.encoders.joint_embedding.JointEmbeddingEncoder.forward",
        "soundfile.read",
        "soundfile.SoundFile",
    ):
        monkeypatch.setattr(name, no_audio)
    table = write_table(tmp_path / "train.csv", [text for own in GROUPS for text in own])
    held_out = write_table(tmp_path / "val.csv", ["a dog barks", "birds sing"])
    tables = [f"text_only.captions=[{table}]", f"text_only.validation_captions=[{held_out}]"]
    run = tmp_path / "run"
    overrides = [*SMALL, *tables, "encoder.pretrained=builtin", f"output_dir={run}"]
    assert train(TINY, overrides, progress=False).steps == 2
    assert (run / "model/encoder/diffusion_pytorch_model.safetensors").is_file()
    assert not (run / "scenes").exists()
    _, prepared = prepared_by(TINY, overrides)
    assert isinstance(prepared.validation, TextOnlyCaptions)
    assert prepared.validation_texts is None


def test_captions_of_tables_are_validated_on_scenes(tmp_path: Path) -> None:
    table = write_table(tmp_path / "train.csv", ["a dog barks"])
    run = tmp_path / "run"
    overrides = [*SMALL, f"text_only.captions=[{table}]", "encoder.pretrained=builtin"]
    _, prepared = prepared_by(TINY, [*overrides, f"output_dir={run}"])
    texts = decode_captions(prepared.words.tokenizer, prepared.training.batch(0, 0).token_ids[:, 0])
    assert set(texts) == {"a dog barks"} == set(prepared.captions)
    assert isinstance(prepared.validation, JointAudio)
    assert len(list((run / "scenes").glob("validation-*"))) == 1
    assert not list((run / "scenes").glob("train-*"))  # nobody needs those


def test_another_tokenizer_gets_a_scorer_of_its_own(tmp_path: Path, scenes: Path) -> None:
    run = tmp_path / "run"
    small = [
        "text.latent_space=split_bert",
        "text.split_bert.bert=random",
        "text.split_bert.split_layer=2",
        "text.split_bert.head.steps=2",
        "scorer.width=24",
        "scorer.depth=1",
        "scorer_loop.max_steps=2",
        "scorer_loop.num_workers=0",
        "encoder.pretrained=builtin",
    ]
    train(TINY, [*SMALL, *small, f"cache_dir={scenes}", f"output_dir={run}"], progress=False)
    captioner = DiffusionCaptioner.from_pretrained(run, "float32")
    assert captioner.scorer.config.pooled_dim == captioner.encoder.pooled_dim == 256
    assert captioner.scorer.config.vocabulary_size == len(captioner.tokenizer) != 1500
    assert captions_of(run, [noise(1.0)])


def test_the_autoregressive_captioner_learns_so_too(tmp_path: Path, scenes: Path) -> None:
    small = ["width=32", "encoder_layers=1", "decoder_layers=1", "heads=2", "feed_forward=32"]
    overrides = [*SMALL, f"cache_dir={scenes}", f"output_dir={tmp_path}", "system=autoregressive"]
    overrides += [f"autoregressive.{each}" for each in small]
    assert "cider_d" in train(TINY, overrides, progress=False).metrics


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
        "text.split_bert.bert=random",
        "text.split_bert.split_layer=2",
        "text.split_bert.head.steps=2",
        "text.max_length=12",
        "denoiser.width=32",
        "denoiser.depth=1",
        "denoiser.heads=2",
        "captioner_training.clips_per_batch=4",
        "captioner_training.evaluation_clips=2",
        "scorer.batch_size=4",
        "scorer.width=24",
        "scorer.depth=1",
        "scorer_loop.num_workers=0",
        "loop.num_workers=0",
        "data.device=cpu",
        "max_steps=2",
    ]


CLAP = CONFIGS / "dac/text_only_clap.yaml"


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


# --- What can go wrong ---


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


def test_what_the_small_encoder_can_get_wrong(tmp_path: Path) -> None:
    run = [*SMALL, f"output_dir={tmp_path / 'run'}"]
    data = "{name: plain, captions: a.csv, audio: .}"
    with pytest.raises(ConfigError, match=r"data\.validation: with the small encoder"):
        train(TINY, [*run, f"data.validation=[{data}]"], progress=False)
    assert not (tmp_path / "run").exists()
    table = write_table(tmp_path / "table.csv", ["a dog barks"])
    tables = [f"text_only.captions=[{table}]", f"text_only.validation_captions=[{table}]"]
    with pytest.raises(ConfigError, match="nowhere: holds no trained encoder"):
        train(TINY, [*run, *tables, f"encoder.pretrained={tmp_path / 'nowhere'}"], progress=False)
    # A captioner of this very kind holds no encoder to start from.
    train(TINY, [*run, *tables, "encoder.pretrained=builtin"], progress=False)
    with pytest.raises(CheckpointError, match="describes JointEmbeddingEncoder, not Conv"):
        train(
            TINY,
            [*run, *tables, f"encoder.pretrained={tmp_path / 'run/model'}"],
            progress=False,
        )


def test_clips_without_words_are_left_out(tmp_path: Path) -> None:
    first, second = tmp_path / "clotho.csv", tmp_path / "audiocaps.csv"
    first.write_text("file_name,caption_1,caption_2\na.wav,a dog barks,\nb.wav,?,!\nc.wav,, rain\n")
    write_table(second, ["birds sing", ""])
    assert read_tables([str(first), str(second)]) == [["a dog barks"], ["rain"], ["birds sing"]]
    assert read_tables([]) == []


# --- The mechanism: learn from texts, then caption sounds ---

SOUNDS = ("a dog barks", "rain falls", "birds sing", "a bell rings")
VARIANTS = ("{}", "{} far away", "then {}", "{} again")


def toy_sound(kind: int, seed: int) -> np.ndarray:
    """One of four sounds that an untrained encoder tells apart: bands of noise, somewhat varied."""
    spectrum = np.fft.rfft(np.random.default_rng([kind, seed]).normal(size=RATE))
    hertz = np.fft.rfftfreq(RATE, 1 / RATE)
    low, high = ((100, 400), (600, 1500), (2500, 5000), (8000, 14000))[kind]
    band = np.fft.irfft(spectrum * ((hertz > low) & (hertz < high)))
    return (0.1 * band / band.std()).astype(np.float32)


def toy_encoder(directions: Tensor) -> JointEmbeddingEncoder:
    """Its joint vectors of the four sounds nearly coincide with `directions` (4, E)."""
    torch.manual_seed(0)
    size = directions.shape[1]
    encoder = ConvolutionalEncoder(channels=(4, 8, 8, 16), width=32, depth=1, dropout=0.0).eval()
    first, second = torch.nn.Linear(32, size), torch.nn.Linear(size, size)
    projection = torch.nn.Sequential(first, torch.nn.GELU(), second)
    sounds = [torch.from_numpy(toy_sound(kind, seed)) for kind in range(4) for seed in range(6)]
    waveform = torch.nn.functional.pad(
        torch.stack(sounds), (0, encoder.canvas_samples(RATE) - RATE)
    )
    with torch.no_grad():
        pooled = encoder(waveform, torch.full((24,), RATE)).pooled
        spread = pooled.std(dim=0)
        first.weight.copy_(torch.randn(size, 32) / spread / 32**0.5)
        first.bias.copy_(-first.weight @ pooled.mean(dim=0))
        hidden = torch.nn.functional.gelu(first(pooled))
        wanted = directions.repeat_interleave(6, dim=0)
        inputs = torch.cat([hidden, torch.ones(24, 1)], dim=1)
        ridge = inputs.T @ inputs + 0.01 * torch.eye(size + 1)
        solved = torch.linalg.solve(ridge, inputs.T @ wanted)
        second.weight.copy_(solved[:-1].T)
        second.bias.copy_(solved[-1])
    return JointEmbeddingEncoder.from_encoder(encoder, projection)


def toy_texts(directions: Tensor) -> Callable[[Sequence[str]], Tensor]:
    """Texts near the direction of the sound they name, each a little beside it."""

    def embed(texts: Sequence[str]) -> Tensor:
        vectors = []
        for text in texts:
            (kind,) = [i for i, sound in enumerate(SOUNDS) if sound in text]
            own = torch.Generator().manual_seed(sum(map(ord, text)))
            beside = torch.randn(directions.shape[1], generator=own)
            vectors.append(directions[kind] + 0.3 * torch.nn.functional.normalize(beside, dim=-1))
        return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)

    return embed


def test_a_captioner_that_read_only_captions_names_sounds(tmp_path: Path) -> None:
    directions = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(2)))[
        0
    ].T
    groups = [[variant.format(sound) for variant in VARIANTS] for sound in SOUNDS]
    tokenizer = train_tokenizer([text for own in groups for text in own], 200)
    pool: EmbeddedCaptions = embed_captions(groups, toy_texts(directions), progress=False)
    source = TextOnlyCaptions(pool, tokenizer, BatchShape(16, 1, 8), 0, noise_variance=0.015)
    torch.manual_seed(1)
    denoiser = CaptionDenoiser(
        latent_dim=16, audio_dim=16, pooled_dim=16, width=48, depth=2, heads=2, max_length=8
    )
    space = EmbeddingSpace(len(tokenizer), 16, initial_std=0.1)
    trainer = CaptionerTrainer(denoiser, space, NoiseSchedule.gumbel(), ObjectiveConfig(), 0)
    scorer = AudioTextScorer(len(tokenizer), 16, width=24, depth=1).eval()
    task = CaptionerTask(
        trainer,
        CaptionerTrainingConfig(evaluation_clips=4, fit_schedule_from=100, fit_schedule_every=50),
        FrozenParts(toy_encoder(directions), scorer, tokenizer),
        source,
        source,
        SamplingConfig(num_candidates=1),
    )
    losses: list[float] = []
    after_step = task.after_step

    def remember(step: int, outputs: dict[str, Tensor]) -> None:
        losses.append(float(outputs["loss"]))
        after_step(step, outputs)

    task.after_step = remember  # type: ignore[method-assign]
    loop = LoopConfig(
        200,
        learning_rate=3e-3,
        warmup_steps=20,
        ema_decay=0.98,
        evaluate_every=200,
        num_workers=0,
        best_metric="+cider_d",
    )
    fit(task, loop, tmp_path, progress=False)
    assert np.mean(losses[-40:]) < 0.5 * np.mean(losses[:40])

    captioner = DiffusionCaptioner.from_pretrained(tmp_path, "float32")
    heard = [(kind, toy_sound(kind, seed)) for kind in range(4) for seed in (100, 101, 102)]
    results = captioner([(sound, RATE) for _, sound in heard], num_captions=1)
    assert isinstance(results, list)
    right = [
        SOUNDS[kind] in result.captions[0].text
        for (kind, _), result in zip(heard, results, strict=True)
    ]
    assert sum(right) >= 11, [result.captions[0].text for result in results]
