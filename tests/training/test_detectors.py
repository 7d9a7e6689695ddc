import pytest
import torch
from torch import Tensor

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from dac_diffusion.training.detectors import MEASURED, _rotation, embedding_distance, report_samples
from tests.helpers import tiny_captioner

REFERENCES = [
    ["a dog barks twice", "a dog is barking"],
    ["heavy rain falls on a roof", "rain pours on a metal roof"],
    ["church bells ring far away", "distant bells are ringing"],
    ["someone types on a keyboard", "keys of a keyboard click"],
]
LENGTH = 12


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


@pytest.mark.parametrize("hears", [True, False])
def test_what_is_reported(hears: bool) -> None:
    tokenizer = train_tokenizer([text for group in REFERENCES for text in group], 200)

    def tell(audio: AudioFeatures) -> Tensor:
        heard = [int(number) for number in audio.pooled[:, 0]] if hears else [0] * len(audio.mask)
        return encode_captions(tokenizer, [REFERENCES[number][0] for number in heard], LENGTH)

    writer = Writer()
    report = report_samples(tell, tokenizer, numbered_clips(4), REFERENCES, writer, step=30)
    assert tuple(report) == MEASURED
    ids = tell(numbered_clips(4))
    assert report["pad_rate"] == pytest.approx(
        float((ids == tokenizer.pad_token_id).float().mean())
    )
    assert 0 < report["pad_rate"] < 1
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


def test_the_embedding_distance_is_over_the_tokens_that_occur() -> None:
    captioner: DiffusionCaptioner = tiny_captioner()
    tokenizer, space = captioner.tokenizer, captioner.latent_space
    everything = [text for group in REFERENCES for text in group]
    used = encode_captions(tokenizer, everything, LENGTH).unique()
    assert len(used) < len(tokenizer)
    distance = embedding_distance(space, tokenizer, REFERENCES, LENGTH)
    assert distance == pytest.approx(space.mean_nearest_neighbour_distance(used))
    assert distance > 0
