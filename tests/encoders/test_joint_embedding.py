"""JointEmbeddingEncoder against the parts it is made of."""

import ast
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import dac_diffusion.encoders.joint_embedding as module
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder, joint_features
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.similarity import AudioTextScorer

KINDS = ("small", "htsat")
SIZE = 12  # of the small encoder's joint space
SMALL = {"channels": (4, 4, 8, 8), "width": 32, "depth": 1, "heads": 2, "canvas_seconds": 1.0}


def make_parts() -> tuple[ConvolutionalEncoder, AudioTextScorer]:
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(**SMALL, window_seconds=7.0).eval()
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return encoder, AudioTextScorer(30, pooled_dim=32, width=24, embedding_dim=SIZE).eval()


@pytest.fixture(scope="module")
def joints() -> dict[str, JointEmbeddingEncoder]:
    encoder, scorer = make_parts()
    return {
        "small": JointEmbeddingEncoder.from_encoder(encoder, scorer.project_audio),
        "htsat": JointEmbeddingEncoder.from_encoder(random_encoder("htsat")),
    }


def recordings(count: int, samples: int) -> Tensor:
    """Noise of different loudness, (count, samples)."""
    generator = torch.Generator().manual_seed(1)
    loudness = 0.02 * 3.0 ** torch.arange(count)[:, None]
    return loudness * torch.randn(count, samples, generator=generator)


@torch.inference_mode()
def encode(encoder: torch.nn.Module, waveform: Tensor, lengths: list[int]) -> AudioFeatures:
    features: AudioFeatures = encoder(waveform, torch.tensor(lengths))
    return features


def test_with_the_small_encoder_it_is_what_the_scorer_makes_of_audio(
    joints: dict[str, JointEmbeddingEncoder],
) -> None:
    encoder, scorer = make_parts()
    waveform, lengths = recordings(3, 40000), [40000, 20000, 33000]
    with torch.inference_mode():
        expected = scorer.embed_audio(encoder(waveform, torch.tensor(lengths)).pooled)
    audio = encode(joints["small"], waveform, lengths)
    torch.testing.assert_close(audio.pooled, expected * SIZE**0.5)


def test_with_htsat_it_is_claps_embedding(joints: dict[str, JointEmbeddingEncoder]) -> None:
    waveform, lengths = recordings(2, 480000), [480000, 100000]
    expected = encode(random_encoder("htsat"), waveform, lengths).pooled
    audio = encode(joints["htsat"], waveform, lengths)
    torch.testing.assert_close(audio.pooled, expected * 32**0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_is_the_only_feature(
    kind: str, joints: dict[str, JointEmbeddingEncoder]
) -> None:
    joint = joints[kind]
    size = {"small": SIZE, "htsat": 32}[kind]
    canvas = joint.canvas_samples(30000)
    audio = encode(joint, recordings(3, canvas), [30000, 30000, 30000])
    assert joint.feature_dim == joint.pooled_dim == size
    assert audio.features.shape == (3, 1, size)
    assert torch.equal(audio.features[:, 0], audio.pooled)
    assert audio.mask.tolist() == [[True]] * 3
    # The elements' mean square is 1: the unit vector times the root of its size.
    torch.testing.assert_close(audio.pooled.square().mean(dim=-1), torch.ones(3))


def test_it_hears_as_the_encoder_inside_does(joints: dict[str, JointEmbeddingEncoder]) -> None:
    for kind, inside in (("small", make_parts()[0]), ("htsat", random_encoder("htsat"))):
        joint = joints[kind]
        assert joint.sampling_rate == inside.sampling_rate
        assert joint.window_seconds == inside.window_seconds
        assert joint.window_is_limit == isinstance(inside, HtsatEncoder)
        for samples in (1, 40000, 40001, 480001):
            assert joint.canvas_samples(samples) == inside.canvas_samples(samples)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_depends_neither_on_its_batch_nor_on_what_follows_it(
    kind: str, joints: dict[str, JointEmbeddingEncoder]
) -> None:
    joint, lengths = joints[kind], [30000, 12000, 25000]
    waveform = recordings(3, joint.canvas_samples(30000))
    waveform = waveform * (torch.arange(waveform.shape[1]) < torch.tensor(lengths)[:, None])
    together = encode(joint, waveform, lengths).pooled
    assert torch.equal(encode(joint, waveform.flip(0), lengths[::-1]).pooled.flip(0), together)
    for i, length in enumerate(lengths):
        alone = encode(joint, waveform[i : i + 1], [length]).pooled[0]
        torch.testing.assert_close(alone, together[i], rtol=0, atol=1e-4)
    others = (together[:1] - together[1:]).abs().amax(dim=-1)
    assert others.min() > 1e-2  # different sounds have different vectors


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_gives_the_same(
    kind: str, joints: dict[str, JointEmbeddingEncoder], tmp_path: Path
) -> None:
    joints[kind].save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert json.loads((tmp_path / "config.json").read_text())["encoder_name"] == kind
    loaded = JointEmbeddingEncoder.from_pretrained(tmp_path, use_safetensors=True).eval()
    waveform = recordings(1, loaded.canvas_samples(30000))
    before, after = (encode(joint, waveform, [30000]) for joint in (joints[kind], loaded))
    # Not to the last bit: this loader gives the weights of convolutions another memory layout.
    torch.testing.assert_close(before.pooled, after.pooled, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_turns_it_by_little(kind: str, joints: dict[str, JointEmbeddingEncoder]) -> None:
    settings = {k: v for k, v in joints[kind].config.items() if not k.startswith("_")}
    half = JointEmbeddingEncoder(**settings)
    half.load_state_dict(joints[kind].state_dict())
    half = half.to(torch.bfloat16).eval()
    waveform = recordings(2, half.canvas_samples(30000))
    exact, rounded = (encode(joint, waveform, [30000] * 2).pooled for joint in (joints[kind], half))
    assert rounded.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(exact, rounded.float())
    assert cosine.min() > 0.995


def test_joint_features_of_written_out_vectors() -> None:
    audio = joint_features(torch.tensor([[0.0, 0.6, 0.8, 0.0], [1.0, 0.0, 0.0, 0.0]]))
    expected = torch.tensor([[0.0, 1.2, 1.6, 0.0], [2.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(audio.pooled, expected)
    torch.testing.assert_close(audio.features, expected[:, None])
    assert audio.mask.all()


def test_another_encoder_is_an_error_of_one_line() -> None:
    with pytest.raises(ConfigError, match="encoder_name='beats' is unknown: use 'small' or") as e:
        JointEmbeddingEncoder("beats")  # type: ignore[arg-type]
    assert "\n" not in str(e.value)


def test_it_imports_nothing_to_its_right() -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    names = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {name for name in names if name.startswith("dac_diffusion.")}
    assert {name.split(".")[1] for name in own} == {"encoders", "errors"}
