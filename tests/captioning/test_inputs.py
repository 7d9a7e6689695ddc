"""From audio arguments to recordings."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dac_diffusion.captioning.inputs import Source, decode_ahead, find_sources
from dac_diffusion.errors import AudioError
from tests.helpers import RATE, noise, write_recordings


def test_one_path_is_single_and_a_folder_is_not(tmp_path: Path) -> None:
    (path,) = write_recordings(tmp_path, 1)
    sources, single = find_sources(path, None, RATE)
    assert single
    assert [source.file_name for source in sources] == ["clip_0.wav"]
    sources, single = find_sources(str(tmp_path), None, RATE)
    assert not single
    assert len(sources) == 1


def test_names_below_a_folder_are_relative(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    write_recordings(tmp_path / "a" / "b", 2)
    write_recordings(tmp_path, 1)
    sources, _ = find_sources(tmp_path, None, RATE)
    names = [source.file_name for source in sources]
    assert names == ["a/b/clip_0.wav", "a/b/clip_1.wav", "clip_0.wav"]


def test_equal_names_from_two_folders_become_paths(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_recordings(tmp_path / folder, 1)
    sources, _ = find_sources([tmp_path / "a", tmp_path / "b"], None, RATE)
    expected = [str(tmp_path / folder / "clip_0.wav") for folder in ("a", "b")]
    assert [source.file_name for source in sources] == expected


def test_arrays_pairs_and_tensors_give_the_same_waveform() -> None:
    samples = noise(0.5)
    sources, single = find_sources([samples, (samples, RATE)], RATE, RATE)
    assert not single
    sources += find_sources((torch.from_numpy(samples), RATE), None, RATE)[0]
    for source in sources:
        np.testing.assert_array_equal(source.load(), samples)
    assert [source.file_name for source in sources] == ["array 0", "array 1", "array 0"]


@pytest.mark.parametrize("audio", [np.zeros(100, np.float32), 3, {"array": 1}, None])
def test_what_is_no_recording_is_named(audio: object) -> None:
    with pytest.raises(AudioError, match="array 0: "):
        find_sources(audio, None, RATE)


def test_an_unusable_entry_of_a_list_fails_when_it_is_decoded(tmp_path: Path) -> None:
    missing = tmp_path / "missing.wav"
    sources, _ = find_sources([missing, *write_recordings(tmp_path, 1)], None, RATE)
    first, second = decode_ahead(sources)
    assert first.waveform is None
    assert "missing.wav" in str(first.error)
    assert second.waveform is not None


def test_decoding_runs_ahead_in_order_but_not_far() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def source(index: int) -> Source:
        def load() -> np.ndarray:
            with lock:
                started.append(index)
            return np.full(4, index, dtype=np.float32)

        return Source(str(index), load)

    recordings = decode_ahead([source(index) for index in range(50)], threads=2)
    for taken in range(50):
        recording = next(recordings)
        assert recording.waveform is not None
        assert recording.waveform[0] == taken
        time.sleep(0.001)
        assert len(started) <= taken + 4
