import pytest
import torch

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training import detectors
from dac_diffusion.training.detectors import _rotation, report_samples, sample_captions
from tests.helpers import tiny_captioner

REFERENCES = [
    ["a dog barks twice", "a dog is barking"],
    ["heavy rain falls on a roof", "rain pours on a metal roof"],
    ["church bells ring far away", "distant bells are ringing"],
    ["someone types on a keyboard", "keys of a keyboard click"],
]
PADS = 5


@pytest.fixture(scope="module")
def captioner() -> DiffusionCaptioner:
    return tiny_captioner()


def numbered_clips(count: int) -> AudioFeatures:
    """Clips whose pooled vector is their number."""
    numbers = torch.arange(count, dtype=torch.float32)
    mask = torch.ones(count, 3, dtype=torch.bool)
    return AudioFeatures(torch.randn(count, 3, 32), mask, numbers[:, None].expand(count, 32))


class Writer:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str, int]] = []

    def add_text(self, name: str, text: str, step: int) -> None:
        self.texts.append((name, text, step))


@pytest.mark.parametrize("size", range(2, 9))
def test_shuffling_gives_every_clip_the_audio_of_another(size: int) -> None:
    rotation = _rotation(size)
    assert sorted(rotation) == list(range(size))
    assert all(index != other for index, other in enumerate(rotation))


def test_samples_are_repeatable(captioner: DiffusionCaptioner) -> None:
    audio = numbered_clips(3)
    with torch.no_grad():
        texts, ids = sample_captions(captioner, audio, 2)
        torch.manual_seed(123)
        again, _ = sample_captions(captioner, audio, 2)
        other, _ = sample_captions(captioner, audio, 2, seed=100)
    assert texts == again != other
    assert ids.shape == (3, 8)


@pytest.mark.parametrize("hears", [True, False])
def test_what_is_reported(
    captioner: DiffusionCaptioner, monkeypatch: pytest.MonkeyPatch, hears: bool
) -> None:
    def tell(
        captioner: DiffusionCaptioner, audio: AudioFeatures, num_steps: int
    ) -> tuple[list[str], torch.Tensor]:
        heard = [int(number) for number in audio.pooled[:, 0]] if hears else [0] * len(audio.mask)
        ids = torch.ones(len(heard), 20, dtype=torch.long)
        ids[:, -PADS:] = captioner.tokenizer.pad_token_id
        return [REFERENCES[number][0] for number in heard], ids

    monkeypatch.setattr(detectors, "sample_captions", tell)
    writer = Writer()
    report = report_samples(captioner, numbered_clips(4), REFERENCES, 2, writer, step=30)
    assert report["pad_rate"] == pytest.approx(PADS / 20)
    assert report["empty"] == report["repeated_bigram"] == report["function_word_ending"] == 0
    if hears:
        assert report["cider_d"] > 1
        assert report["cider_d_with_shuffled_audio"] < 0.1 * report["cider_d"]
        assert 0.8 < report["mean_length_against_references"] < 1.2
    else:  # the same caption whatever is heard
        assert report["cider_d"] == report["cider_d_with_shuffled_audio"] > 0
    ((name, text, step),) = writer.texts
    assert (name, step) == ("captions", 30)
    assert text.splitlines()[0] == "- **a dog barks twice** (reference: a dog barks twice)"


def test_the_embedding_distance_is_reported(captioner: DiffusionCaptioner) -> None:
    captioner.denoiser.eval()
    report = report_samples(captioner, numbered_clips(4), REFERENCES, 1, None, step=0)
    everything = [text for group in REFERENCES for text in group]
    used = encode_captions(captioner.tokenizer, everything, 8).unique()
    assert len(used) < len(captioner.tokenizer)
    expected = captioner.latent_space.mean_nearest_neighbour_distance(used)
    assert report["embedding_distance"] == pytest.approx(expected)
    assert expected > 0
