import torch

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.diffusion.audio_conditioning import AudioMemory
from dac_diffusion.diffusion.likelihood import denoising_log_likelihood
from dac_diffusion.encoders.base import AudioFeatures
from tests.helpers import tiny_captioner

LENGTH = 8


def memory(captioner: DiffusionCaptioner, clips: int) -> AudioMemory:
    generator = torch.Generator().manual_seed(3)
    audio = AudioFeatures(
        torch.randn(clips, 5, 32, generator=generator),
        torch.ones(clips, 5, dtype=torch.bool),
        torch.randn(clips, 32, generator=generator),
    )
    return captioner.denoiser.prepare_audio(audio)


def rate(captioner: DiffusionCaptioner, ids: torch.Tensor, heard: AudioMemory) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(1) for _ in ids]
    return denoising_log_likelihood(
        captioner.denoiser, captioner.latent_space, captioner.scheduler, heard, ids, generators, 0
    )


def captions(clips: int, per_clip: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(4, 40, (clips, per_clip, LENGTH), generator=generator)


def test_values_are_log_probabilities_of_each_caption() -> None:
    captioner = tiny_captioner()
    values = rate(captioner, captions(3, 4), memory(captioner, 3))
    assert values.shape == (3, 4)
    assert (values < 0).all()
    assert values.unique().numel() == 12


def test_equal_captions_of_a_clip_get_equal_values() -> None:
    captioner = tiny_captioner()
    ids = captions(2, 1).expand(2, 3, LENGTH)
    values = rate(captioner, ids, memory(captioner, 2))
    torch.testing.assert_close(values, values[:, :1].expand(2, 3))


def test_a_clip_does_not_depend_on_its_batch() -> None:
    captioner = tiny_captioner()
    ids, heard = captions(4, 3), memory(captioner, 4)
    together = rate(captioner, ids, heard)
    alone = torch.cat([rate(captioner, ids[i : i + 1], heard.select([i])) for i in range(4)])
    torch.testing.assert_close(together, alone)
