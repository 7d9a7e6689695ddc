"""CED: torch's own transformer layers in float64, and clip by clip."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dac_diffusion.encoders.ced import CedEncoder
from tests.encoders.published_layouts import (
    TINY_CED,
    ced_weights,
    encode,
    noise,
)

ROW = 2560  # samples from one patch in time to the next
SHORTEST = 2400


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> CedEncoder:
    path = tmp_path_factory.mktemp("ced") / "ced.pt"
    torch.save(ced_weights(), path)
    return CedEncoder.from_published(path)


# The network against torch's own layers


def reference_layers(weights: dict[str, Tensor], size: dict[str, int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index in range(size["depth"]):
        layer = nn.TransformerEncoderLayer(
            size["width"], size["width"] // 64, size["hidden"], dropout=0.0, activation=F.gelu,
            layer_norm_eps=1e-6, batch_first=True, norm_first=True,
        )  # fmt: skip
        names = {
            "norm1": layer.norm1, "norm2": layer.norm2, "mlp.fc1": layer.linear1,
            "mlp.fc2": layer.linear2, "attn.proj": layer.self_attn.out_proj,
        }  # fmt: skip
        with torch.no_grad():
            for name, module in names.items():
                module.weight.copy_(weights[f"blocks.{index}.{name}.weight"])
                module.bias.copy_(weights[f"blocks.{index}.{name}.bias"])
            layer.self_attn.in_proj_weight.copy_(weights[f"blocks.{index}.attn.qkv.weight"])
            layer.self_attn.in_proj_bias.copy_(weights[f"blocks.{index}.attn.qkv.bias"])
        layers.append(layer.double().train())  # training mode has no fast path of its own
    return layers


@torch.no_grad()
def reference(weights: dict[str, Tensor], size: dict[str, int], decibels: Tensor) -> Tensor:
    """CED on one spectrogram (F, 64), patch by patch and part by part in float64 -> (t, f, W)."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    deviation = (w["init_bn.1.running_var"] + 1e-5).sqrt()
    x = (decibels.double() - w["init_bn.1.running_mean"]) / deviation
    x = x * w["init_bn.1.weight"] + w["init_bn.1.bias"]
    layers = reference_layers(weights, size)
    total, parts = len(x) // 16, []
    for start in range(0, total, size["time_patches"]):
        patches = []
        for t in range(start, min(start + size["time_patches"], total)):
            for f in range(4):
                # The kernel runs over bands first, then over frames.
                patch = x[16 * t : 16 * t + 16, 16 * f : 16 * f + 16].T
                vector = (w["patch_embed.proj.weight"][:, 0] * patch).sum((1, 2))
                vector = vector + w["patch_embed.proj.bias"]
                vector = vector + w["time_pos_embed"][0, :, 0, t - start]
                patches.append(vector + w["freq_pos_embed"][0, :, f, 0])
        hidden = torch.stack(patches)[None]
        for layer in layers:
            hidden = layer(hidden)
        shape = (size["width"],)
        parts.append(F.layer_norm(hidden, shape, w["norm.weight"], w["norm.bias"], 1e-6)[0])
    return torch.cat(parts)


@pytest.mark.parametrize("time_patches", [1, 4, 5, 6, 13])
def test_features_follow_the_formulas(encoder: CedEncoder, time_patches: int) -> None:
    # Parts of 5 patches in time: one part, exactly one, a second of one patch, a third.
    num_samples = SHORTEST + (time_patches - 1) * ROW
    waveform = noise(num_samples)
    decibels = encoder.mel(waveform, torch.tensor([num_samples]))[0]
    audio = encode(encoder, waveform, [num_samples])
    assert audio.features.shape == (1, 4 * time_patches, 128)
    expected = reference(ced_weights(), TINY_CED, decibels)
    torch.testing.assert_close(audio.features[0].double(), expected, rtol=0, atol=2e-5)


# One clip, whatever surrounds it


@pytest.mark.parametrize(
    ("num_samples", "time_patches"),
    # 16 frames need 15 * 160 = 2400 samples, 32 need 4960; 10 s are 1001 frames, 62 * 16 = 992 of
    # them in patches; 30 s are 3001 frames and 187 patches.
    [(1, 1), (2399, 1), (2400, 1), (4959, 1), (4960, 2), (160000, 62), (480000, 187)],
)
def test_a_patch_is_whole_and_heard(
    encoder: CedEncoder, num_samples: int, time_patches: int
) -> None:
    lengths = torch.tensor([num_samples])
    assert encoder.num_time_patches(lengths).tolist() == [time_patches]
    assert encoder.num_frames(lengths).tolist() == [4 * time_patches]
    audio = encode(encoder, noise(num_samples), [num_samples])
    assert audio.features.shape == (1, 4 * time_patches, 128)
    assert audio.mask.all()
    assert audio.pooled.shape == (1, 128)


@pytest.mark.parametrize(
    ("num_samples", "canvas"), [(1, 16000), (16000, 16000), (16001, 32000), (160000, 160000)]
)
def test_the_canvas_is_whole_seconds(encoder: CedEncoder, num_samples: int, canvas: int) -> None:
    assert encoder.canvas_samples(num_samples) == canvas


def test_a_clip_depends_on_nothing_but_itself(encoder: CedEncoder) -> None:
    lengths = [40000, 1500, 2400, 25001, 13000]  # one to four parts
    batch = torch.cat([F.pad(noise(n, i), (0, 40000 - n)) for i, n in enumerate(lengths)])
    batch[0] *= 100  # so loud that a range of the whole batch would cut the others
    batch[1, 1500:] = torch.nan  # what lies behind a clip is not even read
    together = encode(encoder, batch, lengths)
    assert together.features.shape == (5, 60, 128)
    for index, length in enumerate(lengths):
        waveform = noise(length, index) * (100 if index == 0 else 1)
        alone = encode(encoder, waveform, [length])
        padded = encode(encoder, F.pad(waveform, (0, 30011)), [length])
        count = alone.features.shape[1]
        for other, place in ((together, index), (padded, 0)):
            assert int(other.mask[place].sum()) == count
            assert other.mask[place, :count].all()
            assert not other.features[place, count:].any()
            torch.testing.assert_close(
                other.features[place, :count], alone.features[0], rtol=0, atol=1e-5
            )
            torch.testing.assert_close(other.pooled[place], alone.pooled[0], rtol=0, atol=1e-5)


def test_a_short_clip_is_lengthened_by_silence(encoder: CedEncoder) -> None:
    short = encode(encoder, noise(100), [100])
    silent = encode(encoder, F.pad(noise(100), (0, SHORTEST - 100)), [SHORTEST])
    assert torch.equal(short.features, silent.features)
    assert short.features.shape[1] == 4


def test_frequency_pooling_is_the_mean_of_a_time_patch(encoder: CedEncoder) -> None:
    pooling = CedEncoder.from_config({**encoder.config, "frequency_pooling": "mean"})
    pooling.load_state_dict(encoder.state_dict())
    waveform = torch.cat([noise(20000), F.pad(noise(9000, 1), (0, 11000))])
    patches = encode(encoder, waveform, [20000, 9000])
    pooled = encode(pooling, waveform, [20000, 9000])
    assert pooled.features.shape == (2, 7, 128)
    assert pooled.mask.sum(dim=1).tolist() == [7, 3]
    assert pooling.num_frames(torch.tensor([20000, 9000])).tolist() == [7, 3]
    for time in range(7):
        expected = patches.features[:, 4 * time : 4 * time + 4].mean(dim=1)
        torch.testing.assert_close(pooled.features[:, time], expected)
    torch.testing.assert_close(pooled.pooled, patches.pooled)


def test_pooled_is_the_mean_over_the_clip(encoder: CedEncoder) -> None:
    audio = encode(encoder, F.pad(noise(9000), (0, 9000)), [9000])
    torch.testing.assert_close(audio.pooled[0], audio.features[0, :12].mean(dim=0))


def test_training_mode_keeps_the_statistics(encoder: CedEncoder) -> None:
    trained = copy.deepcopy(encoder).train()
    audio = trained(noise(20000), torch.tensor([15000]))
    evaluated = encode(encoder, noise(20000), [15000])
    assert torch.equal(audio.features.detach(), evaluated.features)
    for name, tensor in encoder.init_bn.state_dict().items():
        assert torch.equal(trained.init_bn.state_dict()[name], tensor)
    (audio.features.pow(3).mean() + audio.pooled.pow(3).mean()).backward()
    assert [name for name, weight in trained.named_parameters() if weight.grad is None] == []
    assert all(weight.grad.isfinite().all() for weight in trained.parameters())


def test_bfloat16_comes_close(encoder: CedEncoder) -> None:
    waveform = noise(20000)
    exact = encode(encoder, waveform, [20000])
    half = copy.deepcopy(encoder).to(torch.bfloat16)
    for name, tensor in encoder.init_bn.state_dict().items():  # decibels stay in float32
        assert torch.equal(half.init_bn.state_dict()[name], tensor)
        assert half.init_bn.state_dict()[name].dtype == tensor.dtype
    rounded = encode(half, waveform, [20000])
    assert rounded.features.dtype == rounded.pooled.dtype == torch.bfloat16
    assert (rounded.features.float() - exact.features).abs().mean() < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encode(encoder, waveform, [20000])
    assert (mixed.features.float() - exact.features).abs().mean() < 0.02
