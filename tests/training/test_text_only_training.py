"""Whole trainings from captions alone, with the small encoder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from text_only_runs import CONFIGS, no_audio, prepared_by, write_table

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.systems import load_captioner
from dac_diffusion.text.tokenizer import decode_captions
from dac_diffusion.training.loop import fit
from dac_diffusion.training.run import diffusion_task, train
from dac_diffusion.training.text_only import JointAudio, TextOnlyCaptions, WithTextValidation
from dac_diffusion.training.text_only_preparation import read_tables
from tests.autoregressive.language_model_folders import write_folder
from tests.helpers import RATE, noise

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


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file keep the rendered scenes that they share."""
    return tmp_path_factory.mktemp("scenes")


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


def test_no_audio_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "dac_diffusion.audio.loading.load_audio",
        "dac_diffusion.data.feature_encoding.load_audio",
        "dac_diffusion.training.stages.load_or_render_pool",
        "dac_diffusion.training.text_only_preparation.load_or_encode_pool",
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


def test_a_published_language_model_learns_so_too_in_its_own_words(
    tmp_path: Path, scenes: Path
) -> None:
    write_folder(tmp_path / "llama", "llama", hidden_size=16)
    table = write_table(tmp_path / "train.csv", ["A dog barks!", "Rain falls."])
    run = tmp_path / "run"
    small = [
        "system=prefix",
        f"prefix.language_model={tmp_path / 'llama'}",
        "prefix.qformer.width=16",
        "prefix.qformer.heads=2",
        "prefix.qformer.feed_forward=16",
        "encoder.pretrained=builtin",
        "scorer.width=24",
        "scorer.depth=1",
        "scorer_loop.max_steps=2",
        "scorer_loop.num_workers=0",
        f"text_only.captions=[{table}]",
        f"text_only.validation_captions=[{table}]",
        f"output_dir={run}",
    ]
    train(TINY, [*SMALL, *small], progress=False)
    captioner = load_captioner(run, "float32")
    assert len(captioner.tokenizer) == captioner.scorer.config.vocabulary_size == 12
    assert captioner(noise(1.0), RATE, num_captions=1).error is None
    _, prepared = prepared_by(TINY, [*SMALL, *small])
    token_ids = prepared.training.batch(0, 0).token_ids[:, 0]
    assert set(decode_captions(captioner.tokenizer, token_ids)) == {"a dog barks", "rain falls"}
    assert prepared.words.language_model is not None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("system=enclap", "text_only: not for system=enclap, which reads codes of audio; use "
                          "diffusion, autoregressive or prefix"),
        ("system=recap", "text_only: not for system=recap, which looks up captions by audio; use "
                         "diffusion, autoregressive or prefix"),
        ("system=prefix", "prefix.train_encoder: text_only learns without audio, so the encoder "
                          "cannot learn; set it to false"),
    ],
)  # fmt: skip
def test_systems_that_cannot_learn_without_audio(
    setting: str, message: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = [setting, "prefix.train_encoder=true", f"output_dir={run}"]
    with pytest.raises(ConfigError) as caught:
        train(TINY, settings, progress=False)
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)
    assert not run.exists()


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
