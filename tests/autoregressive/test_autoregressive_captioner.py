"""The autoregressive captioner as a user calls it."""

from pathlib import Path
from typing import Any

import pytest
import torch

import dac_diffusion.autoregressive.drawing as drawing_module
from dac_diffusion import AutoregressiveCaptioner, DiffusionCaptioner, load_captioner
from dac_diffusion.autoregressive.decoding import decode
from dac_diffusion.cli import main
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.ranking.agreement import agreement_with
from dac_diffusion.text.tokenizer import EOS_ID, normalise_caption
from tests.helpers import noise, tiny_autoregressive, tiny_captioner, write_recordings

METHODS = ("greedy", "beam", "nucleus", "diverse_beam")


@pytest.fixture(scope="module")
def captioner() -> AutoregressiveCaptioner:
    return tiny_autoregressive()


@pytest.fixture
def checkpoint(captioner: AutoregressiveCaptioner, tmp_path: Path) -> Path:
    captioner.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("method", METHODS)
def test_captions_are_distinct_and_best_first(
    captioner: AutoregressiveCaptioner, method: Any
) -> None:
    clip = captioner(noise(1.0), sampling_rate=32000, num_captions=3, decoding=method)
    texts = [normalise_caption(caption.text) for caption in clip.captions]
    assert 1 <= len(texts) <= (1 if method == "greedy" else 3)
    assert len(set(texts)) == len(texts)
    assert "" not in texts


@pytest.mark.parametrize("method", METHODS)
def test_alone_and_in_a_list_a_recording_gets_the_same(
    captioner: AutoregressiveCaptioner, tmp_path: Path, method: Any
) -> None:
    files = write_recordings(tmp_path, 3)
    together = captioner(list(files), num_captions=2, decoding=method, seed=4)
    assert isinstance(together, list)
    for file, clip in zip(files, together, strict=True):
        assert captioner(file, num_captions=2, decoding=method, seed=4) == clip


def test_drawn_again_for_want_of_different_captions_it_gets_the_same(tmp_path: Path) -> None:
    """However long the captions of the recordings beside it are."""
    captioner = tiny_autoregressive()
    files = write_recordings(tmp_path, 3)
    call = {"num_captions": 4, "num_candidates": 4, "decoding": "nucleus", "temperature": 0.05}
    together = captioner(list(files), **call)
    assert isinstance(together, list)
    assert all(len(clip.candidates) > 4 for clip in together)  # so there were further rounds
    for file, clip in zip(files, together, strict=True):
        assert captioner(file, **call) == clip


def test_ranking_by_likelihood_orders_by_likelihood(captioner: AutoregressiveCaptioner) -> None:
    clip = captioner(noise(1.0), sampling_rate=32000, num_captions=4, ranking="likelihood")
    scores = [caption.score for caption in clip.captions]
    assert all(score < 0 for score in scores)
    assert len(set(scores)) > 1


def test_the_weighted_likelihood_adds_to_the_similarity() -> None:
    captioner = tiny_autoregressive()
    call = {"sampling_rate": 32000, "num_captions": 4, "num_candidates": 4}
    scores = {}
    for ranking in ("audio_text", "likelihood"):
        clip = captioner(noise(1.0), ranking=ranking, **call)
        scores[ranking] = {caption.text: caption.score for caption in clip.captions}
    captioner.register_to_config(likelihood_weight=0.3)
    clip = captioner(noise(1.0), **call)
    assert len(clip.captions) == 4
    for caption in clip.captions:
        similarity, likelihood = (of[caption.text] for of in scores.values())
        assert caption.score == pytest.approx(similarity + 0.3 * likelihood, abs=1e-5)


def test_ranking_by_likelihood_is_short_for_its_weights() -> None:
    captioner = tiny_autoregressive()
    call = {"sampling_rate": 32000, "num_captions": 4, "num_candidates": 4}
    alone = captioner(noise(1.0), ranking="likelihood", **call)
    for caption in alone.captions:
        assert caption.parts is not None
        assert caption.score == caption.parts.log_likelihood
        assert caption.parts.agreement is None
    weights = {"audio_text_weight": 0.0, "likelihood_weight": 1.0}
    assert captioner(noise(1.0), **weights, **call) == alone
    captioner.register_to_config(agreement_weight=3.0)
    assert captioner(noise(1.0), ranking="likelihood", **call) == alone
    # A weight of the call stands beside it.
    found = captioner(noise(1.0), ranking="likelihood", agreement_weight=3.0, **call)
    for caption in found.captions:
        assert caption.parts is not None
        assert caption.parts.log_likelihood is not None
        assert caption.parts.agreement is not None
        expected = caption.parts.log_likelihood + 3 * caption.parts.agreement
        assert caption.score == pytest.approx(expected)


def test_agreement_is_a_setting_of_the_call_and_of_the_checkpoint(tmp_path: Path) -> None:
    captioner = tiny_autoregressive()
    sound = noise(1.0)
    call = {"sampling_rate": 32000, "num_captions": 4, "num_candidates": 12, "temperature": 0.5}
    weights = {"likelihood_weight": 0.0, "agreement_weight": 50.0, "score_normalisation": "z_score"}
    plain, found = captioner(sound, **call), captioner(sound, **weights, **call)
    assert found.candidates == plain.candidates
    agreements = [c.parts.agreement for c in found.captions if c.parts is not None]
    assert agreements == sorted(agreements, reverse=True)
    assert len(set(agreements)) > 1
    assert found.captions != plain.captions
    captioner.register_to_config(**weights)
    captioner.save_pretrained(tmp_path)
    assert load_captioner(tmp_path, "float32")(sound, **call) == found


def test_captions_of_one_length(
    captioner: AutoregressiveCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def decode_and_keep(*arguments: Any) -> torch.Tensor:
        seen.append(decode(*arguments))
        return seen[-1]

    monkeypatch.setattr(drawing_module, "decode", decode_and_keep)
    for method in METHODS:
        captioner(noise(1.0), 32000, num_captions=1, decoding=method, min_length=7, max_length=7)
    for ids in seen:
        assert ids.shape[-1] == 7
        assert bool((ids > EOS_ID).all())  # words only


def test_many_candidates_are_decoded_a_few_clips_at_a_time(
    captioner: AutoregressiveCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = [(noise(1.0, seed), 32000) for seed in range(3)]
    together = captioner(sounds, num_candidates=6)
    clips_at_once: list[int] = []

    def decode_and_count(*arguments: Any) -> Any:
        clips_at_once.append(len(arguments[-1]))
        return decode(*arguments)

    monkeypatch.setattr(drawing_module, "decode", decode_and_count)
    monkeypatch.setattr(drawing_module, "SEQUENCES_PER_CALL", 13)
    assert captioner(sounds, num_candidates=6) == together
    assert clips_at_once[:2] == [2, 1]
    clips_at_once.clear()
    captioner(sounds, num_candidates=14)
    assert clips_at_once[:3] == [1, 1, 1]


def test_redundancy_is_a_setting_of_the_call_and_of_the_checkpoint(tmp_path: Path) -> None:
    captioner = tiny_autoregressive()
    sound = noise(1.0)
    call = {"sampling_rate": 32000, "num_captions": 4, "num_candidates": 40, "temperature": 0.3}
    plain, spread = captioner(sound, **call), captioner(sound, redundancy_weight=50.0, **call)
    assert spread.captions[0] == plain.captions[0]
    assert spread.captions != plain.captions
    first, second = spread.captions[0].text, spread.captions[1].text
    likeness = agreement_with(first, spread.candidates)
    assert agreement_with(first, [second])[0] == min(likeness)
    captioner.register_to_config(redundancy_weight=50.0)
    captioner.save_pretrained(tmp_path)
    assert load_captioner(tmp_path, "float32")(sound, **call) == spread
    with pytest.raises(ConfigError, match="redundancy_weight=nan: must be a finite number"):
        captioner(sound, redundancy_weight=float("nan"), **call)


def test_saved_and_loaded_it_captions_alike(
    captioner: AutoregressiveCaptioner, checkpoint: Path
) -> None:
    loaded = load_captioner(checkpoint, "float32")
    assert isinstance(loaded, AutoregressiveCaptioner)
    sound = noise(1.0)
    for method in METHODS:
        one, other = (
            c(sound, sampling_rate=32000, num_captions=2, decoding=method)
            for c in (captioner, loaded)
        )
        assert one == other


def test_each_kind_is_loaded_as_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    tiny_captioner().save_pretrained(tmp_path / "diffusion")
    assert isinstance(load_captioner(tmp_path / "diffusion"), DiffusionCaptioner)
    with pytest.raises(CheckpointError) as caught:
        DiffusionCaptioner.from_pretrained(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint / 'model_index.json'}: describes a AutoregressiveCaptioner, not a "
        "DiffusionCaptioner; give a captioner of that kind"
    )


def test_missing_weights_are_an_error(checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = checkpoint / "network" / "model.safetensors"
    weights = load_file(path)
    weights.pop("model.decoder.layers.1.fc1.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"network: the weights lack model\.decoder\.layers"):
        load_captioner(checkpoint)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_captions": 0}, "num_captions=0: must be at least 1"),
        ({"num_captions": 3, "num_candidates": 2}, "must be at least num_captions=3"),
        ({"decoding": "greedy", "num_candidates": 2}, "greedy decoding has one caption only"),
        ({"decoding": "magic"}, "decoding='magic'"),
        ({"ranking": "magic"}, "ranking='magic': must be one of audio_text, likelihood"),
        ({"likelihood_weight": float("nan")}, "likelihood_weight=nan: must be a finite number"),
        ({"score_normalisation": "rank"}, "score_normalisation='rank': must be one of none, z_sc"),
        ({"error_threshold": -0.1}, "error_threshold=-0.1: must be a number from 0 to 1"),
        ({"max_length": 1000}, "max_length=1000: must be at least min_length=1 and at most"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ],
)
def test_calls_that_make_no_sense(
    captioner: AutoregressiveCaptioner, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        captioner(noise(0.5), sampling_rate=32000, **settings)
    assert message in str(caught.value)


def test_the_command_captions_with_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = write_recordings(tmp_path, 1)
    command = ["caption", "--model", str(checkpoint), str(file), "--num-captions", "2"]
    assert main([*command, "--decoding", "beam", "--num-beams", "3"]) == 0
    assert "clip_0.wav" in capsys.readouterr().out
    assert main([*command, "--num-steps", "4"]) == 1
    error = capsys.readouterr().err
    assert "--num-steps: " in error
    assert "is an autoregressive captioner, which has no such setting" in error


def test_a_diffusion_model_has_no_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_captioner().save_pretrained(tmp_path / "diffusion")
    (file,) = write_recordings(tmp_path, 1)
    model = str(tmp_path / "diffusion")
    assert main(["caption", "--model", model, str(file), "--decoding", "beam"]) == 1
    assert "--decoding: " in capsys.readouterr().err
