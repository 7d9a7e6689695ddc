from pathlib import Path

import numpy as np
import pytest
import soundfile

from dac_diffusion.data.soundscapes.banks import ClipFolderBank, SynthesizerBank, find_occurrences
from dac_diffusion.errors import AudioError, DacError, DataError

RATE = 1000  # a frame of 20 ms is 20 samples


def signal(*ranges: tuple[int, int, float], length: int = 2000) -> np.ndarray:
    waveform = np.zeros(length, np.float32)
    for start, end, amplitude in ranges:
        waveform[start:end] = amplitude
    return waveform


@pytest.mark.parametrize(
    ("waveform", "expected"),
    [
        (signal((200, 400, 0.5), (1000, 1100, 0.5)), ((200, 400), (1000, 1100))),
        (signal((200, 400, 0.5), (580, 700, 0.5)), ((200, 700),)),  # a pause of 180 ms
        (signal((200, 400, 0.5), (600, 700, 0.5)), ((200, 400), (600, 700))),  # of 200 ms
        (signal((0, 2000, 0.1)), ((0, 2000),)),
        (signal((1500, 1990, 0.1), length=1990), ((1500, 1990),)),  # up to a half frame's end
        (signal((0, 7, 0.1), length=7), ((0, 7),)),  # shorter than a frame
        # 40 dB below the loudest is silence; 25 dB below is no occurrence of its own, ...
        (signal((200, 400, 0.5), (1000, 1100, 0.005)), ((200, 400),)),
        (signal((200, 400, 0.5), (1000, 1100, 0.028)), ((200, 400),)),
        # ... but the tail of one.
        (signal((200, 400, 0.5), (400, 600, 0.028)), ((200, 600),)),
        (signal((200, 400, 0.5), (1000, 1100, 0.1)), ((200, 400), (1000, 1100))),
    ],
)
def test_occurrences_are_where_energy_stands_out(
    waveform: np.ndarray, expected: tuple[tuple[int, int], ...]
) -> None:
    assert find_occurrences(waveform, RATE) == expected


def test_a_bank_has_the_recordings_of_its_split(clip_folder: Path) -> None:
    bank = ClipFolderBank(clip_folder, "val", 32000)
    assert bank.labels == ("car_horn", "dog", "door_wood_knock", "engine", "rain", "wind")
    assert len(bank.files()) == 12
    assert all(file.startswith(f"val_{label}") for label, file in bank.files())
    assert bank.weight("dog") == pytest.approx(np.sqrt(2))


def test_a_recording_and_its_occurrences(clip_folder: Path) -> None:
    bank = ClipFolderBank(clip_folder, "train", 32000)
    recording = bank.recording("dog", "train_dog_1.wav")
    original, _ = soundfile.read(clip_folder / "train_dog_1.wav", dtype="float32")
    assert recording.waveform.dtype == np.float32
    np.testing.assert_allclose(recording.waveform, original, atol=1e-4)
    found = np.array(recording.occurrences) / 32000
    np.testing.assert_allclose(found, [(0.5, 0.8), (1.5, 1.8), (2.5, 2.8)], atol=0.02)
    # Kept from the first time, and not shared with whoever changes it.
    recording.waveform[:] = 0
    assert bank.recording("dog", "train_dog_1.wav").waveform.any()


def test_draws_of_a_label_cover_its_recordings(clip_folder: Path) -> None:
    bank = ClipFolderBank(clip_folder, "train", 32000)
    rng = np.random.default_rng(0)
    assert all(bank.draw("rain", rng).label == "rain" for _ in range(20))
    assert sorted(bank._loaded) == ["train_rain_1.wav", "train_rain_2.wav"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(clip_folder: Path) -> None:
    # What Excel writes.
    text = (clip_folder / "clips.csv").read_text().replace("train_", f"{clip_folder}/train_")
    marked = clip_folder / "marked"
    marked.mkdir()
    (marked / "clips.csv").write_text(text, encoding="utf-8-sig")
    assert len(ClipFolderBank(marked, "train", 32000).files()) == 12


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "cannot be read"),
        ("file,label\na.wav,dog\n", "missing: .'split'"),
        ("", "missing: .'file', 'label', 'split'"),
        ("file,label,split\n", "no clip has the split 'train'"),
        ("file,label,split\na.wav,dog,val\n", "no clip has the split 'train'"),
        (b"file,label,split\n\xff\xfe.wav,dog,train\n", "cannot be read"),
    ],
)
def test_a_wrong_table_is_an_error_of_one_line(
    tmp_path: Path, table: str | bytes | None, message: str
) -> None:
    if table is not None:
        data = table if isinstance(table, bytes) else table.encode()
        (tmp_path / "clips.csv").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        ClipFolderBank(tmp_path, "train", 32000)
    assert str(tmp_path / "clips.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recording_and_a_nearly_silent_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,label,split\na.wav,dog,train\nb.wav,rain,train\n")
    soundfile.write(tmp_path / "b.wav", np.full(4000, 1e-6), 32000, "FLOAT")
    bank = ClipFolderBank(tmp_path, "train", 32000)
    for label, name in (("dog", "a.wav"), ("rain", "b.wav")):
        with pytest.raises(AudioError, match=name) as caught:
            bank.draw(label, np.random.default_rng(0))
        assert isinstance(caught.value, DacError)
        assert "\n" not in str(caught.value)


def test_every_synthesized_draw_is_new_and_repeatable() -> None:
    bank = SynthesizerBank(32000)
    first, second = _two_draws(bank)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, _two_draws(bank)[0])


def _two_draws(bank: SynthesizerBank) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    recordings = [bank.draw("electronic_beep", rng) for _ in range(2)]
    assert all(r.occurrences == ((0, len(r.waveform)),) for r in recordings)
    return recordings[0].waveform, recordings[1].waveform
