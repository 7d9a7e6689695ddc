"""CodeEncoder against the codec and the sequence encoder it is made of."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import soxr
import torch
from torch import Tensor

import dac_diffusion.codecs
from dac_diffusion.captioning.window_encoding import Window, encode_windows, window_batches
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.loading import codec_class, codec_name, random_codec
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.clips import resampled_length
from dac_diffusion.encoders.loading import encoder_name, load_encoder, random_encoder
from dac_diffusion.errors import CheckpointError, ConfigError
from tests.codecs.published_codecs import noise

CODECS = ("encodec", "descript", "beats_tokenizer", "rvq")
# Of one second.
SHAPES = {"encodec": (75, 16), "descript": (75, 32), "beats_tokenizer": (48, 1), "rvq": (48, 4)}
# A sequence encoder at a higher rate, at a lower or equal rate, and none.
SEQUENCES = ("htsat", "beats", None)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    made = {name: random_codec(name) for name in CODECS}
    return {**made, "htsat": random_encoder("htsat"), "beats": random_encoder("beats"), None: None}


@torch.inference_mode()
def encode(encoder: Any, waveform: Tensor, *lengths: int) -> AudioFeatures:
    audio: AudioFeatures = encoder(waveform, torch.tensor(lengths))
    return audio


def soxr_clip(clip: Tensor, source: int, target: int) -> Tensor:
    """A clip as other programs would resample it."""
    if source == target:
        return clip
    return torch.from_numpy(soxr.resample(clip.numpy(), source, target, "HQ"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_codes_are_the_codecs_and_the_vector_the_sequence_encoders(
    parts: dict[str, Any], codec: str, sequence: str | None
) -> None:
    own, other = parts[codec], parts[sequence]
    encoder = CodeEncoder.from_parts(own, other)
    assert encoder.sampling_rate == max(own.sampling_rate, other.sampling_rate if other else 0)
    waveform = noise(1, 1.0, rate=encoder.sampling_rate)
    audio = encode(encoder, waveform, waveform.shape[1])

    def alone(part: Any) -> AudioFeatures:
        clip = soxr_clip(waveform[0], encoder.sampling_rate, part.sampling_rate)
        return encode(part, clip[None], len(clip))

    frames, count = SHAPES[codec]
    assert audio.features.shape == (1, frames, count)
    assert audio.features.dtype == torch.long
    assert torch.equal(audio.features, alone(own).features)
    assert torch.equal(audio.mask, alone(own).mask)
    assert (encoder.num_codebooks, encoder.feature_dim) == (count, count)
    assert encoder.codebook_size == own.codebook_size
    assert audio.features.max() < encoder.codebook_size
    if other is None:
        assert audio.pooled.tolist() == [[1.0]]
    else:
        torch.testing.assert_close(audio.pooled, alone(other).pooled, rtol=0, atol=1e-5)
    assert audio.pooled.shape[1] == encoder.pooled_dim


@pytest.mark.parametrize("codec", CODECS)
def test_a_clip_depends_neither_on_its_batch_nor_on_what_follows_it(
    parts: dict[str, Any], codec: str
) -> None:
    encoder = CodeEncoder.from_parts(parts[codec], parts["htsat"])
    lengths = [30000, 96000, 52345]
    waveform = noise(3, 2.5, rate=48000)  # noise behind every clip
    together = encode(encoder, waveform, *lengths)
    for row, length in enumerate(lengths):
        padded = torch.zeros(1, encoder.canvas_samples(length))
        padded[0, :length] = waveform[row, :length]
        alone = encode(encoder, padded, length)
        frames = int(alone.mask.sum())
        assert together.mask[row].tolist() == [
            place < frames for place in range(together.mask.shape[1])
        ]
        assert torch.equal(together.features[row, :frames], alone.features[0, :frames])
        assert not together.features[row, frames:].any()
        assert torch.equal(together.pooled[row], alone.pooled[0])
    assert len({tuple(row.tolist()) for row in together.pooled}) == 3


def test_windows_of_one_canvas_have_one_canvas_in_every_part(parts: dict[str, Any]) -> None:
    for codec in CODECS:
        for sequence in SEQUENCES:
            encoder = CodeEncoder.from_parts(parts[codec], parts[sequence])
            rate, seen = encoder.sampling_rate, {}
            for length in [*range(1, 400, 57), *range(900, 12 * rate, 7777), 10 * rate, 7 * rate]:
                canvas = encoder.canvas_samples(length)
                assert canvas >= length
                assert encoder.canvas_samples(canvas) == canvas
                inside = [
                    part.canvas_samples(resampled_length(length, rate, part.sampling_rate))
                    for part in (encoder.codec, encoder.sequence_encoder)
                    if part is not None
                ]
                assert seen.setdefault(canvas, inside) == inside


def test_windows_through_the_captioners_own_batching(parts: dict[str, Any]) -> None:
    encoder = CodeEncoder.from_parts(parts["encodec"], parts["htsat"])
    waveforms = [noise(1, seconds, rate=48000)[0].numpy() for seconds in (0.5, 1.4, 0.9, 1.9)]
    windows = [Window(str(i), 0.0, waveform) for i, waveform in enumerate(waveforms)]
    batches = list(window_batches(windows, encoder, 8))
    assert sorted(map(sorted, batches)) == [[0, 2], [1, 3]]
    with torch.inference_mode():
        for batch in batches:
            audio = encode_windows(encoder, [windows[i] for i in batch], torch.device("cpu"))
            for row, i in enumerate(batch):
                alone = encode(encoder, torch.from_numpy(waveforms[i])[None], len(waveforms[i]))
                assert torch.equal(audio.features[row], alone.features[0])
                assert torch.equal(audio.pooled[row], alone.pooled[0])


def test_the_same_encoder_runs_once(parts: dict[str, Any]) -> None:
    codec = parts["rvq"]
    shared = CodeEncoder.from_parts(codec, codec.encoder)
    assert shared.config.sequence_name == "codec"
    assert shared.sequence_encoder is None
    calls = []
    shared.codec.encoder.register_forward_hook(lambda *call: calls.append(1))
    waveform = noise(1, 1.0, rate=16000)
    audio = encode(shared, waveform, 16000)
    assert calls == [1]
    expected = encode(codec.encoder, waveform, 16000)
    assert torch.equal(audio.pooled, expected.pooled)
    assert shared.pooled_dim == expected.pooled.shape[1]
    # Other weights or another kind make two of them.
    for other in (random_encoder("beats", seed=9), random_encoder("ced")):
        assert CodeEncoder.from_parts(codec, other).sequence_encoder is not None


def test_the_vector_of_a_long_clip_is_the_mean_of_its_windows(parts: dict[str, Any]) -> None:
    htsat, rate = parts["htsat"], 48000
    encoder = CodeEncoder.from_parts(parts["encodec"], htsat)
    waveform = noise(1, 24.0, rate=rate)
    length = 23 * rate + 5
    found = encode(encoder, waveform, length).pooled
    bounds = [(0, 10 * rate), (10 * rate, 20 * rate), (20 * rate, length)]
    vectors = [
        (end - start) / length * encode(htsat, waveform[:, start:end], end - start).pooled
        for start, end in bounds
    ]
    torch.testing.assert_close(found, torch.stack(vectors).sum(dim=0), rtol=0, atol=1e-5)
    # A rest below a second is the end of a window that overlaps the one before it.
    length = 10 * rate + 100
    bounds = [(0, 10 * rate), (100, length)]
    vectors = [encode(htsat, waveform[:, s:e], e - s).pooled / 2 for s, e in bounds]
    found = encode(encoder, waveform, length).pooled
    torch.testing.assert_close(found, torch.stack(vectors).sum(dim=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("codec", CODECS)
def test_saved_and_loaded_again(parts: dict[str, Any], codec: str, tmp_path: Path) -> None:
    encoder = CodeEncoder.from_parts(parts[codec], parts["htsat"], window_seconds=7.0)
    encoder.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    settings = json.loads((tmp_path / "config.json").read_text())
    assert (settings["codec_name"], settings["sequence_name"]) == (codec, "htsat")
    loaded = load_encoder("codes", tmp_path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.window_seconds == 7.0
    assert load_encoder("codes", tmp_path, window_seconds=3.0).window_seconds == 3.0
    waveform = noise(1, 1.0, rate=48000)
    before, after = (encode(e, waveform, 48000) for e in (encoder, loaded))
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.pooled, after.pooled)


def test_codes_stay_those_of_float32(parts: dict[str, Any]) -> None:
    encoder = CodeEncoder.from_parts(parts["encodec"], parts["htsat"])
    waveform = noise(1, 1.0, rate=48000)
    exact = encode(encoder, waveform, 48000)
    for cast in (encoder.to(torch.bfloat16), encoder.half(), encoder.to("cpu", torch.float64)):
        audio = encode(cast, waveform, 48000)
        assert torch.equal(audio.features, exact.features)
        torch.testing.assert_close(audio.pooled.float(), exact.pooled, rtol=0, atol=1e-2)
        assert cast.dtype == torch.float32
    kinds = [torch.bfloat16, torch.float16, torch.float64]
    assert [encode(encoder.to(kind), waveform, 48000).pooled.dtype for kind in kinds] == kinds
    with torch.autocast("cpu", torch.bfloat16):
        audio = encode(encoder.to(torch.float32), waveform, 48000)
    assert torch.equal(audio.features, exact.features)
    assert torch.equal(audio.pooled, exact.pooled)


def test_random_ones_by_name() -> None:
    for name in CODECS:
        codec = random_codec(name, seed=3)
        assert codec_name(codec) == name
        assert type(codec) is codec_class(name)
        waveform = noise(1, 1.0, rate=codec.sampling_rate)
        codes = encode(codec, waveform, codec.sampling_rate).features
        again = encode(random_codec(name, seed=3), waveform, codec.sampling_rate).features
        assert torch.equal(codes, again)
        assert not torch.equal(
            encode(random_codec(name, seed=4), waveform, codec.sampling_rate).features, codes
        )
        assert all(len(book.unique()) > 5 for book in codes[0].T)
        count = 1 if name == "beats_tokenizer" else 2
        fewer = random_codec(name, seed=3, num_codebooks=count)
        assert fewer.num_codebooks == count
        assert torch.equal(
            encode(fewer, waveform, codec.sampling_rate).features, codes[..., :count]
        )


def test_settings_that_make_no_encoder(parts: dict[str, Any], tmp_path: Path) -> None:
    def refused(message: str, *arguments: Any, **settings: Any) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            CodeEncoder(*arguments, **settings)
        assert "\n" not in str(caught.value)

    small = {"encodec_config": {"num_filters": 4, "hidden_size": 16}}
    refused("codec_name='mp3' is unknown: use one of encodec, descript, beats_tokenizer", "mp3")
    refused("sequence_name='codec': encodec has no vector of its own", "encodec", small, "codec")
    refused("'codec': beats_tokenizer has no vector", "beats_tokenizer", sequence_name="codec")
    refused("encoder='panns' is unknown: use one of small, beats", "encodec", small, "panns")
    refused("window_seconds=0: must be above 0$", "encodec", small, window_seconds=0)
    refused("bandwidth=7: EnCodec has", "encodec", {**small, "bandwidth": 7})
    refused("sequence_name='codes': give an encoder of features", "encodec", small, "codes")
    with pytest.raises(ConfigError, match="CodeEncoder is no codec: use encodec, descript, beats"):
        codec_name(random_encoder("codes"))
    with pytest.raises(ConfigError, match="Linear is none of the encoders small, beats"):
        encoder_name(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="frequency_pooling: codes have no such setting"):
        load_encoder("codes", tmp_path, frequency_pooling="mean")


def test_a_window_longer_than_a_quantised_encoder_hears() -> None:
    from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
    from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer

    htsat = random_encoder("htsat")
    codec = QuantizedEncoder.from_parts(htsat, ResidualQuantizer(htsat.feature_dim, 2, 4))
    assert CodeEncoder.from_parts(codec).window_is_limit
    assert CodeEncoder.from_parts(codec, window_seconds=6.0).window_seconds == 6.0
    with pytest.raises(
        ConfigError, match=r"window_seconds=12\.0: must be above 0 and at most 10, all"
    ):
        CodeEncoder.from_parts(codec, window_seconds=12.0)


def test_folders_that_hold_no_code_encoder(parts: dict[str, Any], tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_encoder("codes", tmp_path / "folder")
        assert "\n" not in str(caught.value)

    refused(r"folder/config\.json: is missing, so this is no complete checkpoint")
    parts["beats"].save_pretrained(tmp_path / "folder")
    refused("describes BeatsEncoder, not CodeEncoder; give another folder")
    encoder = CodeEncoder.from_parts(parts["encodec"], parts["htsat"])
    encoder.save_pretrained(tmp_path / "folder")
    settings = json.loads((tmp_path / "folder/config.json").read_text())
    (tmp_path / "folder/config.json").write_text(json.dumps({**settings, "sequence_name": None}))
    refused("the weights have, beyond what config.json describes, sequence_encoder")
    path = tmp_path / "folder/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused("damaged or cut off")


def test_codecs_import_nothing_to_their_right() -> None:
    folder = Path(str(dac_diffusion.codecs.__file__)).parent
    names = {
        str(node.module).split(".")[1]
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dac_diffusion.")
    }
    assert names == {"codecs", "encoders", "errors", "hub", "saved_models", "seeds"}
