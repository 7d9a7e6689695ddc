"""BEATs: the formulas in float64, WavLM's attention, and clip by clip."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import (
    WavLMAttention,
    WavLMEncoder,
    WavLMEncoderStableLayerNorm,
)

from dac_diffusion.encoders.beats import FBANK_MEAN, FBANK_STD, BeatsEncoder
from dac_diffusion.encoders.beats_transformer import (
    BeatsTransformer,
    RelativeAttention,
    distance_buckets,
)
from tests.encoders.published_layouts import (
    TINY_BEATS,
    beats_weights,
    encode,
    noise,
    save_beats,
)

ROW = 2560  # samples from one patch in time to the next
SHORTEST = 2800


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BeatsEncoder:
    path = tmp_path_factory.mktemp("beats") / "beats.pt"
    return BeatsEncoder.from_published(save_beats(path, TINY_BEATS, beats_weights()))


# The network against formulas and against transformers


def reference(weights: dict[str, Tensor], cfg: dict[str, Any], frames: Tensor) -> Tensor:
    """BEATs without a batch, one patch, tap and head after the other, in float64."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    kernel = w["patch_embedding.weight"][:, 0]
    patches = [
        (kernel * frames[16 * t : 16 * t + 16, 16 * f : 16 * f + 16]).sum((1, 2))
        for t in range(len(frames) // 16)
        for f in range(8)
    ]
    x = linear(norm(torch.stack(patches), "layer_norm"), "post_extract_proj")
    v = w["encoder.pos_conv.0.weight_v"]
    taps = w["encoder.pos_conv.0.weight_g"] * v / v.square().sum((0, 1), keepdim=True).sqrt()
    around = w["encoder.pos_conv.0.bias"].repeat(len(x), 1)
    per_group = v.shape[1]
    for n in range(len(x)):
        for k in range(v.shape[2]):
            source = n + k - v.shape[2] // 2
            for group in range(cfg["conv_pos_groups"] if 0 <= source < len(x) else 0):
                part = slice(group * per_group, (group + 1) * per_group)
                around[n, part] += taps[part, :, k] @ x[source, part]
    x = norm(x + gelu(around), "encoder.layer_norm")
    alpha = (2 * cfg["encoder_layers"]) ** 0.25
    size = cfg["encoder_embed_dim"] // cfg["encoder_attention_heads"]
    bias = torch.stack(
        [
            w["encoder.layers.0.self_attn.relative_attention_bias.weight"][
                [bucket(key - query, cfg["num_buckets"], cfg["max_distance"])
                 for key in range(len(x))]
            ]
            for query in range(len(x))
        ]
    )  # (N, N, H)  # fmt: skip
    for index in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{index}."
        q, k, v = (linear(x, f"{layer}self_attn.{name}_proj") for name in "qkv")
        heads = []
        for head in range(cfg["encoder_attention_heads"]):
            part = slice(head * size, (head + 1) * size)
            gates = linear(q[:, part], f"{layer}self_attn.grep_linear")
            a, b = gates[:, :4].sum(1).sigmoid(), gates[:, 4:].sum(1).sigmoid()
            scale = a * (b * w[f"{layer}self_attn.grep_a"][0, head, 0, 0] - 1) + 2
            logits = q[:, part] @ k[:, part].T / size**0.5 + scale[:, None] * bias[:, :, head]
            heads.append(logits.softmax(-1) @ v[:, part])
        attended = linear(torch.cat(heads, -1), f"{layer}self_attn.out_proj")
        x = norm(alpha * x + attended, f"{layer}self_attn_layer_norm")
        fed = linear(gelu(linear(x, f"{layer}fc1")), f"{layer}fc2")
        x = norm(alpha * x + fed, f"{layer}final_layer_norm")
    return x


def bucket(distance: int, buckets: int, max_distance: int) -> int:
    half, size = buckets // 2, abs(distance)
    exact = half // 2
    if size >= exact:
        growth = math.log(size / exact) / math.log(max_distance / exact)
        size = min(exact + int(growth * (half - exact)), half - 1)
    return size + (half if distance > 0 else 0)


def test_features_follow_the_formulas(encoder: BeatsEncoder) -> None:
    waveform = noise(SHORTEST + 3 * ROW)  # 4 patches in time, 32 in all
    frames = encoder.filter_bank(waveform * 2**15)[0]
    normalised = (frames.double() - FBANK_MEAN) / (2 * FBANK_STD)
    expected = reference(beats_weights(), TINY_BEATS, normalised)
    audio = encode(encoder, waveform, [waveform.shape[1]])
    assert audio.features.shape == (1, 32, 32)
    torch.testing.assert_close(audio.features[0].double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("buckets", "max_distance"), [(320, 800), (320, 1280), (32, 128)])
def test_distances_fall_into_the_buckets_of_wavlm(buckets: int, max_distance: int) -> None:
    wavlm = WavLMAttention(8, 1, num_buckets=buckets, max_distance=max_distance)
    distances = torch.arange(-3000, 3001)
    expected = wavlm._relative_positions_bucket(distances)
    assert torch.equal(distance_buckets(distances, buckets, max_distance), expected)


def copy_attention(wavlm: Any, ours: RelativeAttention) -> None:
    # WavLM computes its gate from the layer's input, BEATs from the query: with this projection
    # both are the same.
    with torch.no_grad():
        wavlm.q_proj.weight.copy_(torch.eye(len(wavlm.q_proj.weight)))
        wavlm.q_proj.bias.zero_()
        wavlm.gru_rel_pos_const.uniform_(0.5, 2)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        getattr(ours, name).load_state_dict(getattr(wavlm, name).state_dict())
    ours.grep_linear.load_state_dict(wavlm.gru_rel_pos_linear.state_dict())
    ours.grep_a.data.copy_(wavlm.gru_rel_pos_const)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM's own
@torch.no_grad()
def test_attention_agrees_with_wavlm() -> None:
    torch.manual_seed(0)
    wavlm = WavLMAttention(32, 4, num_buckets=16, max_distance=20)
    ours = RelativeAttention(32, 4, gated=True)
    copy_attention(wavlm, ours)
    x = torch.randn(2, 40, 32)
    mask = torch.arange(40) < torch.tensor([[40], [25]])
    bias = wavlm.compute_bias(40, 40)
    expected = wavlm(x, attention_mask=mask.long())[0]
    torch.testing.assert_close(ours(x, bias, mask)[mask], expected[mask], rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM's own
@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_the_transformer_agrees_with_wavlm(norm_first: bool) -> None:
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        num_conv_pos_embeddings=6, num_conv_pos_embedding_groups=4, num_buckets=16,
        max_bucket_distance=20,
    )  # fmt: skip
    wavlm = (WavLMEncoderStableLayerNorm if norm_first else WavLMEncoder)(config).eval()
    ours = BeatsTransformer(
        width=32, depth=3, hidden=48, heads=4, activation="gelu", kernel=6, groups=4, buckets=16,
        max_distance=20, gated=True, deep_norm=False, norm_first=norm_first,
    ).eval()  # fmt: skip
    ours.pos_conv.weight.copy_(wavlm.pos_conv_embed.conv.weight)
    ours.pos_conv.bias.copy_(wavlm.pos_conv_embed.conv.bias.normal_())
    ours.layer_norm.load_state_dict(wavlm.layer_norm.state_dict())
    assert ours.relative_attention_bias is not None
    first_bias = wavlm.layers[0].attention.rel_attn_embed
    ours.relative_attention_bias.load_state_dict(first_bias.state_dict())
    for theirs, layer in zip(wavlm.layers, ours.layers, strict=True):
        copy_attention(theirs.attention, layer.self_attn)
        theirs.layer_norm.weight.uniform_(0.5, 1.5)
        layer.self_attn_layer_norm.load_state_dict(theirs.layer_norm.state_dict())
        layer.final_layer_norm.load_state_dict(theirs.final_layer_norm.state_dict())
        layer.fc1.load_state_dict(theirs.feed_forward.intermediate_dense.state_dict())
        layer.fc2.load_state_dict(theirs.feed_forward.output_dense.state_dict())
    x = torch.randn(2, 40, 32)
    mask = torch.arange(40) < torch.tensor([[40], [25]])
    expected = wavlm(x.clone(), attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask], rtol=0, atol=1e-5)


# One clip, whatever surrounds it


@pytest.mark.parametrize(
    ("num_samples", "time_patches"),
    # 16 frames need 400 + 15 * 160 = 2800 samples, 32 need 5360; 10 s are 998 frames, 62 * 16 = 992
    # of them in patches; 30 s are 2998 frames and 187 patches.
    [(1, 1), (2799, 1), (2800, 1), (5359, 1), (5360, 2), (160000, 62), (480000, 187)],
)
def test_a_patch_is_whole_and_heard(
    encoder: BeatsEncoder, num_samples: int, time_patches: int
) -> None:
    lengths = torch.tensor([num_samples])
    assert encoder.num_time_patches(lengths).tolist() == [time_patches]
    assert encoder.num_frames(lengths).tolist() == [8 * time_patches]
    if num_samples <= 160000:
        audio = encode(encoder, noise(num_samples), [num_samples])
        assert audio.features.shape == (1, 8 * time_patches, 32)
        assert audio.mask.all()
        assert audio.pooled.shape == (1, 32)


@pytest.mark.parametrize(
    ("num_samples", "canvas"), [(1, 16000), (16000, 16000), (16001, 32000), (160000, 160000)]
)
def test_the_canvas_is_whole_seconds(encoder: BeatsEncoder, num_samples: int, canvas: int) -> None:
    assert encoder.canvas_samples(num_samples) == canvas


def test_a_clip_depends_on_nothing_but_itself(encoder: BeatsEncoder) -> None:
    lengths = [40000, 1500, 2800, 25001, 39999]
    batch = torch.cat([F.pad(noise(n, i), (0, 40000 - n)) for i, n in enumerate(lengths)])
    batch[1, 1500:] = torch.nan  # what lies behind a clip is not even read
    together = encode(encoder, batch, lengths)
    for index, length in enumerate(lengths):
        alone = encode(encoder, noise(length, index), [length])
        padded = encode(encoder, F.pad(noise(length, index), (0, 30011)), [length])
        count = alone.features.shape[1]
        for other, place in ((together, index), (padded, 0)):
            assert int(other.mask[place].sum()) == count
            assert other.mask[place, :count].all()
            assert not other.features[place, count:].any()
            torch.testing.assert_close(
                other.features[place, :count], alone.features[0], rtol=0, atol=1e-5
            )
            torch.testing.assert_close(other.pooled[place], alone.pooled[0], rtol=0, atol=1e-5)


def test_a_short_clip_is_lengthened_by_silence(encoder: BeatsEncoder) -> None:
    short = encode(encoder, noise(900), [900])
    silent = encode(encoder, F.pad(noise(900), (0, SHORTEST - 900)), [SHORTEST])
    assert torch.equal(short.features, silent.features)
    assert short.features.shape[1] == 8


def test_longer_than_a_window_works(encoder: BeatsEncoder) -> None:
    num_samples = 15 * 16000
    audio = encode(encoder, noise(num_samples), [num_samples])
    assert audio.features.shape == (1, 8 * 93, 32)  # 1498 frames
    assert audio.features.isfinite().all()


def test_frequency_pooling_is_the_mean_of_a_time_patch(encoder: BeatsEncoder) -> None:
    pooling = BeatsEncoder.from_config({**encoder.config, "frequency_pooling": "mean"})
    pooling.load_state_dict(encoder.state_dict())
    waveform = torch.cat([noise(20000), F.pad(noise(9000, 1), (0, 11000))])
    patches = encode(encoder, waveform, [20000, 9000])
    pooled = encode(pooling, waveform, [20000, 9000])
    assert pooled.features.shape == (2, 7, 32)
    assert pooled.mask.sum(dim=1).tolist() == [7, 3]
    assert pooling.num_frames(torch.tensor([20000, 9000])).tolist() == [7, 3]
    for time in range(7):
        expected = patches.features[:, 8 * time : 8 * time + 8].mean(dim=1)
        torch.testing.assert_close(pooled.features[:, time], expected)
    torch.testing.assert_close(pooled.pooled, patches.pooled)


def test_pooled_is_the_mean_over_the_clip(encoder: BeatsEncoder) -> None:
    audio = encode(encoder, F.pad(noise(9000), (0, 9000)), [9000])
    torch.testing.assert_close(audio.pooled[0], audio.features[0, :24].mean(dim=0))


def test_bfloat16_comes_close(encoder: BeatsEncoder) -> None:
    waveform = noise(20000)
    exact = encode(encoder, waveform, [20000])
    rounded = encode(copy.deepcopy(encoder).to(torch.bfloat16), waveform, [20000])
    assert rounded.features.dtype == rounded.pooled.dtype == torch.bfloat16
    assert (rounded.features.float() - exact.features).abs().mean() < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encode(encoder, waveform, [20000])
    assert (mixed.features.float() - exact.features).abs().mean() < 0.02


def test_gradients_reach_every_weight(encoder: BeatsEncoder) -> None:
    trained = copy.deepcopy(encoder).train()
    audio = trained(noise(20000), torch.tensor([15000]))
    (audio.features.pow(3).mean() + audio.pooled.pow(3).mean()).backward()
    assert [name for name, weight in trained.named_parameters() if weight.grad is None] == []
    assert all(weight.grad.isfinite().all() for weight in trained.parameters())
