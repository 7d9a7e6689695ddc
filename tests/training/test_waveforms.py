"""Batches of recordings, told apart by how loud they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from dac_diffusion.captioning.window_encoding import Window, encode_windows
from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import DataError
from dac_diffusion.text.tokenizer import decode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import BatchShape, Waveforms
from dac_diffusion.training.waveforms import (
    WaveformCaptions,
    encode_waveforms,
    pad_waveforms,
)

RATE = 16000
WORDS = ["dog", "cat", "rain", "wind", "bell", "horn"]
ENCODER = random_encoder("ced")


def ramp(clip: int, seconds: float) -> np.ndarray:
    """Samples that rise from (clip + 1) / 10 by 1e-7 each, so that any part tells what it is."""
    return (0.1 * (clip + 1) + 1e-7 * np.arange(round(seconds * RATE))).astype(np.float32)


def data_set(folder: Path, seconds: Sequence[float], broken: Sequence[int] = ()) -> CaptionDataset:
    """Clips of some lengths with two captions each."""
    clips = []
    for clip, length in enumerate(seconds):
        path = folder / f"{clip}.wav"
        if clip in broken:
            path.write_bytes(b"no sound")
        else:
            soundfile.write(path, ramp(clip, length), RATE, subtype="FLOAT")
        captions = (f"{WORDS[clip]}, one!", f"{WORDS[clip]}, TWO.")
        clips.append(CaptionedClip(str(clip), path, captions))
    return CaptionDataset(folder, tuple(clips))


def source(dataset: CaptionDataset, clips: int = 8, **settings: Any) -> WaveformCaptions:
    tokenizer = train_tokenizer([" ".join([*WORDS, "one", "two"])], 200)
    shape = BatchShape(clips, 2, 6)
    return WaveformCaptions([dataset], ENCODER, tokenizer, shape, seed=3, **settings)


def clip_numbers(audio: Waveforms) -> list[int]:
    return [round(float(value) * 10) - 1 for value in audio.waveform[:, 0]]


def waveforms_of(captions: WaveformCaptions, step: int, rank: int = 0) -> Waveforms:
    audio = captions.batch(step, rank).audio
    assert isinstance(audio, Waveforms)
    return audio


def test_captions_belong_to_their_recording(tmp_path: Path) -> None:
    captions = source(data_set(tmp_path, [0.3, 0.2, 0.4]))
    seen = set()
    for step in range(3):
        batch = captions.batch(step, 0)
        audio = waveforms_of(captions, step)
        assert batch.token_ids.shape == (8, 2, 6)
        texts = decode_captions(captions.tokenizer, batch.token_ids.flatten(0, 1))
        for row, clip in enumerate(clip_numbers(audio)):
            own = {f"{WORDS[clip]} one", f"{WORDS[clip]} two"}  # no capitals, no punctuation
            assert set(texts[2 * row : 2 * row + 2]) == own
            length = round([0.3, 0.2, 0.4][clip] * RATE)
            assert int(audio.num_samples[row]) == length
            expected = torch.from_numpy(ramp(clip, length / RATE))
            assert torch.equal(audio.waveform[row, :length], expected)
            assert (audio.waveform[row, length:] == 0).all()
            seen.add(clip)
    assert seen == {0, 1, 2}


def test_captions_may_keep_their_punctuation(tmp_path: Path) -> None:
    captions = source(data_set(tmp_path, [0.2]), clips=1, normalise=False)
    ids = captions.batch(0, 0).token_ids[0]
    assert set(decode_captions(captions.tokenizer, ids)) == {"dog, one", "dog, two"}


def test_a_batch_is_a_function_of_seed_step_and_rank(tmp_path: Path) -> None:
    captions = source(data_set(tmp_path, [0.3] * 6), window_seconds=0.1)
    first, again = waveforms_of(captions, 3, 1), waveforms_of(captions, 3, 1)
    assert torch.equal(first.waveform, again.waveform)
    for other in (waveforms_of(captions, 4, 1), waveforms_of(captions, 3, 0)):
        assert not torch.equal(first.waveform, other.waveform)


def test_of_a_long_recording_a_random_part_is_heard(tmp_path: Path) -> None:
    dataset = data_set(tmp_path, [0.5])
    audio = waveforms_of(source(dataset, window_seconds=0.1), 0)
    assert audio.waveform.shape == (8, 1600)
    assert audio.num_samples.tolist() == [1600] * 8
    starts = [round((float(row[0]) - 0.1) / 1e-7) for row in audio.waveform]
    assert len(set(starts)) > 4
    assert all(0 <= start <= 6400 for start in starts)
    fixed = waveforms_of(source(dataset, window_seconds=0.1, random_crop=False), 0)
    assert torch.equal(fixed.waveform[0], torch.from_numpy(ramp(0, 0.1)))


def test_broken_recordings_are_named_once_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = data_set(tmp_path, [0.1] * 6, broken=[1, 4])
    captions = source(dataset)
    with caplog.at_level(logging.WARNING, logger="dac_diffusion"):
        batches = [waveforms_of(captions, step) for step in range(6)]
        captions.first(6)
    numbers = [number for audio in batches for number in clip_numbers(audio)]
    assert set(numbers) == {0, 2, 3, 5}
    assert all(len(audio.num_samples) == 8 for audio in batches)
    named = sorted(record.getMessage() for record in caplog.records)
    assert [line.split(": ")[:2] for line in named] == [
        ["left out", str(tmp_path / f"{clip}.wav")] for clip in (1, 4)
    ]
    # What was met before changes nothing.
    for step in (5, 2):
        assert torch.equal(waveforms_of(source(dataset), step).waveform, batches[step].waveform)


def test_nothing_but_broken_recordings(tmp_path: Path) -> None:
    captions = source(data_set(tmp_path, [0.1] * 2, broken=[0, 1]))
    with pytest.raises(DataError) as caught:
        captions.batch(0, 0)
    assert str(caught.value) == (
        f"{tmp_path}: of 80 recordings only 0 can be decoded; check the folder"
    )
    with pytest.raises(DataError) as caught:
        captions.first(2)
    assert str(caught.value) == f"{tmp_path}: none of the recordings can be decoded"


def alone(encoder: Any, waveforms: list[np.ndarray]) -> list[Any]:
    """The features of every clip by itself, as the feature cache has them."""
    cpu = torch.device("cpu")
    with torch.no_grad():
        return [encode_windows(encoder, [Window("", 0.0, w)], cpu) for w in waveforms]


@pytest.mark.parametrize("name", ["ced", "small"])
def test_clips_of_several_lengths_are_heard_as_if_alone(name: str) -> None:
    torch.manual_seed(0)
    small = ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2).eval()
    encoder = ENCODER if name == "ced" else small
    lengths = [50000, 9000, 90000, 30000, 16000]
    generator = np.random.default_rng(0)
    waveforms = [generator.normal(0, 0.1, n).astype(np.float32) for n in lengths]
    assert len({encoder.canvas_samples(n) for n in lengths}) == (4 if name == "ced" else 2)
    with torch.no_grad():
        audio = encode_waveforms(encoder, pad_waveforms(waveforms))
    for row, expected in enumerate(alone(encoder, waveforms)):
        count = int(expected.mask.sum())
        assert int(audio.mask[row].sum()) == count
        own = audio.features[row, :count]
        torch.testing.assert_close(own, expected.features[0, :count], rtol=0, atol=2e-5)
        torch.testing.assert_close(audio.pooled[row], expected.pooled[0], rtol=0, atol=2e-5)


def test_the_first_clips_come_as_features_of_their_beginning(tmp_path: Path) -> None:
    dataset = data_set(tmp_path, [0.5, 0.1, 1.2, 0.4], broken=[1])
    captions = source(dataset, window_seconds=0.4)
    audio, references = captions.first(2)
    assert references == [["dog, one!", "dog, TWO."], ["rain, one!", "rain, TWO."]]
    expected = alone(ENCODER, [ramp(0, 0.4), ramp(2, 0.4)])
    for row, each in enumerate(expected):
        torch.testing.assert_close(audio.features[row], each.features[0], rtol=0, atol=2e-5)
    assert len(captions.first(10)[1]) == 3


def test_the_clips_of_several_data_sets_are_equally_likely(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first, second = data_set(one, [0.1] * 2), data_set(two, [0.1] * 5)
    both = WaveformCaptions(
        [first, CaptionDataset(two, second.clips[2:])],
        ENCODER,
        source(first).tokenizer,
        BatchShape(100, 1, 6),
        seed=0,
    )
    numbers = clip_numbers(waveforms_of(both, 0))
    assert len(both) == 5
    assert all(10 <= numbers.count(clip) <= 32 for clip in range(5))
