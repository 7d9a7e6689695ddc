"""The CLAP score over a fabricated model: against transformers, and nothing left to chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from dac_diffusion.errors import CheckpointError, DataError, MissingExtraError
from dac_diffusion.metrics.clap_score import ClapScore
from tests.metrics.fabricated_models import save_clap

CAPTIONS = ["a dog barks", "heavy rain on a roof", "two dogs and rain then stop"]
REFERENCES = [["unused"]] * 3


@pytest.fixture
def audio(tmp_path: Path) -> list[Path]:
    paths = []
    for index, seconds in enumerate((0.5, 1.0, 3.4)):
        samples = np.random.default_rng(index).normal(0, 0.1, int(seconds * 8000))
        paths.append(tmp_path / f"{index}.wav")
        soundfile.write(paths[-1], samples, 8000)
    return paths


def test_it_is_the_cosine_that_transformers_gives(clap_folder: Path, audio: list[Path]) -> None:
    from transformers import ClapModel, ClapProcessor

    model, processor = (
        ClapModel.from_pretrained(clap_folder).eval(),
        ClapProcessor.from_pretrained(clap_folder),
    )
    metric = ClapScore(clap_folder, audio)
    assert metric.missing() == []
    scores = metric.score(CAPTIONS, REFERENCES)
    for caption, path, score in list(zip(CAPTIONS, audio, scores, strict=True))[:2]:
        samples = soundfile.read(path, dtype="float32")[0]
        features = processor.feature_extractor(samples, sampling_rate=8000, return_tensors="pt")
        text = processor.tokenizer([caption], return_tensors="pt")
        with torch.no_grad():
            output = model(
                input_ids=text["input_ids"],
                attention_mask=text["attention_mask"],
                input_features=features["input_features"],
            )
        expected = torch.cosine_similarity(output.text_embeds, output.audio_embeds).item()
        assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_a_long_recording_is_cut_and_not_sampled(
    tmp_path: Path, audio: list[Path], fused: bool
) -> None:
    save_clap(tmp_path / "clap", fused)
    long = audio[2]
    samples = soundfile.read(long)[0]
    first = ClapScore(tmp_path / "clap", [long]).score(CAPTIONS[:1], REFERENCES[:1])
    np.random.seed(7)
    again = ClapScore(tmp_path / "clap", audio).score(CAPTIONS[:1] * 3, REFERENCES)
    assert again[2] == pytest.approx(first[0], abs=1e-5)
    # A rest shorter than a second is left out, and only that: 3.4 s are judged as 3 s.
    soundfile.write(tmp_path / "cut.wav", samples[:24000], 8000)
    soundfile.write(tmp_path / "shorter.wav", samples[:16000], 8000)
    paths = [tmp_path / "cut.wav", tmp_path / "shorter.wav"]
    cut, shorter = ClapScore(tmp_path / "clap", paths).score(CAPTIONS[:1] * 2, REFERENCES[:2])
    assert cut == pytest.approx(first[0], abs=1e-5)
    assert shorter != pytest.approx(first[0], abs=1e-5)


def test_weights_of_the_older_kind_are_read_without_running_code(
    clap_folder: Path, audio: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    save_clap(folder)
    expected = ClapScore(folder, audio).score(CAPTIONS, REFERENCES)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    metric = ClapScore(folder, audio)
    assert metric.missing() == []
    assert metric.score(CAPTIONS, REFERENCES) == pytest.approx(expected, abs=1e-5)
    touched = tmp_path / "touched"

    class Unsafe:
        def __reduce__(self) -> tuple[object, ...]:
            return touched.touch, ()

    torch.save({"weights": Unsafe()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="the CLAP model cannot be read"):
        metric.score(CAPTIONS, REFERENCES)
    assert not touched.exists()


def test_missing_weights_are_an_error_and_not_random(audio: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "clap"
    save_clap(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.linear1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights are missing, such as text_projection"):
        ClapScore(folder, audio).score(CAPTIONS, REFERENCES)
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="the CLAP model cannot be read") as caught:
        ClapScore(folder, audio).score(CAPTIONS, REFERENCES)
    assert str(folder) in str(caught.value)


def test_everything_is_looked_for_before_the_start(
    clap_folder: Path, audio: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.wav").touch()
    paths = [tmp_path / "gone.wav", tmp_path / "empty.wav", *[tmp_path / "far"] * 3]
    with pytest.raises(MissingExtraError) as caught:
        ClapScore(clap_folder, paths).score(["a dog"] * 5, [["a dog"]] * 5)
    assert "gone.wav: does not exist" in str(caught.value)
    assert "empty.wav: the file is empty" in str(caught.value)
    assert "5 in all" in str(caught.value)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    lacking = ClapScore(tmp_path, audio).missing()
    assert f"preprocessor_config.json or processor_config.json in {tmp_path}" in " ".join(lacking)
    assert f"a CLAP model, {tmp_path} holds another kind; give its folder" in lacking
    (tmp_path / "config.json").write_text("no json")
    assert ClapScore(tmp_path, audio).missing() == lacking


def test_lists_must_fit_together(clap_folder: Path, audio: list[Path]) -> None:
    with pytest.raises(DataError, match="got 2 captions for 3 clips"):
        ClapScore(clap_folder, audio).score(CAPTIONS[:2], REFERENCES)
    with pytest.raises(DataError, match="of recordings, needs one caption per clip; got 3 capti"):
        ClapScore(clap_folder, audio[:2]).score(CAPTIONS, REFERENCES)
