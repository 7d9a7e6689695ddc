"""Windows of features through a Q-Former, against transformers' own called window by window."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from dac_diffusion.autoregressive.window_qformer import WindowQFormer, frequency_major
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import load_saved_model

DIM, WIDTH, HIDDEN = 8, 20, 24
SIZES = {"hidden": HIDDEN, "layers": 2, "heads": 2, "feed_forward": 32}


def make(**settings: object) -> WindowQFormer:
    """A small projection with weights that have opinions."""
    torch.manual_seed(0)
    projection = WindowQFormer(DIM, WIDTH, **{**SIZES, **settings}).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in projection.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return projection


def clips(lengths: list[int], total: int, padding: float = 0.0) -> AudioFeatures:
    """Random features of clips, the same for a clip in every batch; `padding` behind them."""
    mask = torch.arange(total) < torch.tensor(lengths)[:, None]
    features = torch.full((len(lengths), total, DIM), padding)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length)
        features[row, :length] = torch.randn(length, DIM, generator=generator)
    return AudioFeatures(features, mask, features[:, 0])


@torch.no_grad()
def by_hand(projection: WindowQFormer, windows: list[Tensor]) -> Tensor:
    """Embeddings (N, W) of windows (w, D), one at a time through a stock Q-Former."""
    stock = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            cross_attention_frequency=1,
            encoder_hidden_size=DIM,
        )
    ).eval()
    stock.load_state_dict(projection.qformer.state_dict())
    rows = [
        stock(query_embeds=projection.query, encoder_hidden_states=window[None]).last_hidden_state
        for window in windows
    ]
    return projection.to_network(torch.cat(rows)[:, 0])


@pytest.mark.parametrize(("features", "windows"), [(248, 14), (756, 44), (17, 1), (34, 2), (33, 1)])
def test_what_is_left_behind_the_last_window_is_dropped(features: int, windows: int) -> None:
    projection = make(bands=1)
    with torch.no_grad():
        embeddings, mask = projection(clips([features], features))
    assert embeddings.shape == (1, windows, WIDTH)
    assert mask.tolist() == [[1] * windows]
    assert mask.dtype == torch.long


def test_its_published_size() -> None:
    with torch.device("meta"):
        projection = WindowQFormer(768, 4096)
    attention = 4 * (768 * 768 + 768) + 2 * 768
    layer = 2 * attention + 768 * 3072 + 3072 + 3072 * 768 + 768 + 2 * 768
    assert sum(p.numel() for p in projection.qformer.parameters()) == 2 * layer + 2 * 768
    assert projection.query.shape == (1, 1, 768)
    assert projection.to_network.weight.shape == (4096, 768)
    assert all(hasattr(each, "crossattention") for each in projection.qformer.encoder.layer)


def test_windows_are_those_of_a_stock_q_former() -> None:
    projection = make(bands=1, window=5)
    audio = clips([17, 12], 17)
    with torch.no_grad():
        embeddings, mask = projection(audio)
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    for row, count in enumerate([3, 2]):
        windows = [audio.features[row, 5 * i : 5 * i + 5] for i in range(count)]
        expected = by_hand(projection, windows)
        torch.testing.assert_close(embeddings[row, :count], expected, rtol=1e-5, atol=1e-5)
    assert (embeddings[1, 2] == 0).all()
    assert (embeddings[0, 0] - embeddings[0, 1]).abs().max() > 1e-2  # the audio is heard


def test_frequency_major_by_hand() -> None:
    # Two bands, parts of three moments; clips of five and of six moments.
    features = torch.arange(12.0)[None, :, None].repeat(2, 1, 1)  # time-major
    mask = torch.arange(12) < torch.tensor([[10], [12]])
    first, second = frequency_major(features, mask, bands=2, time_patches=3)[..., 0].int().tolist()
    assert first == [0, 2, 4, 1, 3, 5, 6, 8, 7, 9, 10, 11]
    assert second == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_frequency_major_is_the_published_flattening_of_whole_parts() -> None:
    features = torch.randn(2, 3 * 63 * 4, DIM)
    mask = torch.ones(2, 3 * 63 * 4, dtype=torch.bool)
    published = rearrange(features, "b (part t f) d -> b (part f t) d", t=63, f=4)
    assert torch.equal(frequency_major(features, mask, 4, 63), published)


def test_a_window_holds_the_moments_of_one_band() -> None:
    projection = make(window=5, bands=4, time_patches=10)
    audio = clips([40], 40)
    grid = rearrange(audio.features[0], "(t f) d -> f t d", f=4)
    with torch.no_grad():
        embeddings, _ = projection(audio)
        in_time, _ = make(window=5, bands=4, time_patches=10, order="time_major")(audio)
    windows = [grid[band, start : start + 5] for band in range(4) for start in (0, 5)]
    torch.testing.assert_close(embeddings[0], by_hand(projection, windows), rtol=1e-5, atol=1e-5)
    windows = [audio.features[0, start : start + 5] for start in range(0, 40, 5)]
    torch.testing.assert_close(in_time[0], by_hand(projection, windows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep_remainder", [False, True])
@pytest.mark.parametrize("order", ["frequency_major", "time_major"])
def test_a_clip_depends_neither_on_its_batch_nor_on_padding(
    order: str, keep_remainder: bool
) -> None:
    projection = make(order=order, keep_remainder=keep_remainder, bands=4, time_patches=10)
    lengths = [8, 40, 68, 100]
    with torch.no_grad():
        together, mask = projection(clips(lengths, 120, padding=30.0))
        for row, length in enumerate(lengths):
            alone, own = projection(clips([length], length))
            count = int(own.sum())
            assert own.shape[1] == count
            assert mask[row].tolist() == [1] * count + [0] * (mask.shape[1] - count)
            torch.testing.assert_close(together[row, :count], alone[0], rtol=1e-5, atol=1e-5)
            assert (together[row, count:] == 0).all()
    counts = [1, 3, 4, 6] if keep_remainder else [1, 2, 4, 5]
    assert mask.sum(dim=1).tolist() == counts


def test_a_short_window_attends_to_its_own_features_only() -> None:
    projection = make(window=6, bands=1)
    audio = clips([4], 6, padding=30.0)
    with torch.no_grad():
        embeddings, _ = projection(audio)
    expected = by_hand(projection, [audio.features[0, :4]])
    torch.testing.assert_close(embeddings[0], expected, rtol=1e-5, atol=1e-5)


def test_a_clip_without_features_has_no_window_and_no_nan() -> None:
    projection = make(window=6, bands=1)
    embeddings, mask = projection(clips([0, 6], 6))
    assert mask.tolist() == [[0], [1]]
    assert torch.isfinite(embeddings).all()
    embeddings.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in projection.parameters() if p.grad is not None)


def test_gradients_reach_every_weight_but_self_attention_on_one_query() -> None:
    projection = make(window=6, bands=1).train()
    embeddings, _ = projection(clips([12], 12))
    embeddings.square().mean().backward()
    # A softmax over one query is 1 whatever it and its key are.
    without = {
        name
        for name, weight in projection.named_parameters()
        if (weight.grad is None or not weight.grad.any())
        and not any(
            part in name for part in ("attention.attention.query", "attention.attention.key")
        )
    }
    assert without == set()


def test_saved_and_loaded_it_gives_the_same(tmp_path: Path) -> None:
    projection = make(window=5, bands=2, time_patches=4)
    projection.save_pretrained(tmp_path)
    loaded = load_saved_model(WindowQFormer, tmp_path)
    audio = clips([20], 20)
    with torch.no_grad():
        assert torch.equal(projection(audio)[0], loaded(audio)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "sideways"}, "order='sideways': must be one of frequency_major, time_major"),
        ({"window": 0}, "window=0: must be at least 1"),
        ({"bands": 0}, "bands=0: must be at least 1"),
        ({"time_patches": 0}, "time_patches=0: must be at least 1"),
        ({"heads": 5}, "a width of 24 cannot be divided into 5 attention heads"),
    ],
)
def test_sizes_that_make_no_network(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert str(caught.value) == message


def test_features_of_other_bands() -> None:
    with pytest.raises(ConfigError) as caught:
        make(bands=4)(clips([30], 30))
    assert str(caught.value) == (
        "bands=4: 30 features per clip are not those of 4 bands; give the projection the encoder's "
        "number of bands (1 with frequency_pooling=mean)"
    )
