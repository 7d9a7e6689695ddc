"""BeatsTokenizer on files in the published layout, against the formula written out in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dac_diffusion.captioning.window_encoding import Window, encode_windows, window_batches
from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.encoders.beats import BeatsEncoder
from dac_diffusion.encoders.loading import load_encoder, random_encoder
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.saved_models import load_saved_model
from tests.codecs.published_codecs import noise, same_codes
from tests.encoders.published_layouts import (
    TINY_BEATS,
    TINY_TOKENIZER,
    TOKENIZER,
    beats_weights,
    encode,
    save_beats,
    tokenizer_shapes,
    tokenizer_weights,
)

RATE = 16000
LENGTHS = [2 * RATE, 17000, 30001]
CODEBOOK = "quantize.embedding.weight"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Of a tiny tokenizer whose first layer spreads the features, which random layers hardly do."""
    path = save_beats(tmp_path_factory.mktemp("beats") / "b.pt", TINY_BEATS, beats_weights())
    beats, seconds = BeatsEncoder.from_published(path), 4
    features = encode(beats, noise(1, seconds, rate=RATE), [seconds * RATE]).features[0]  # (S, D)
    made = tokenizer_weights()
    first = made["quantize_layer.0.weight"] / features.std(dim=0)
    made["quantize_layer.0.weight"] = first
    made["quantize_layer.0.bias"] = -first @ features.mean(dim=0)
    return made


@pytest.fixture(scope="module")
def tokenizer(
    weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> BeatsTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "t.pt"
    return BeatsTokenizer.from_published(save_beats(path, TINY_TOKENIZER, weights))


def squared_distances(weights: dict[str, Tensor], features: Tensor) -> Tensor:
    """Of every patch's vector of length 1 from every entry, (B, S, C), as the published code."""
    own = {name: value.double() for name, value in weights.items() if "quantize" in name}
    x = features.double() @ own["quantize_layer.0.weight"].T + own["quantize_layer.0.bias"]
    x = x.tanh() @ own["quantize_layer.2.weight"].T + own["quantize_layer.2.bias"]  # (B, S, Q)
    x = x / x.square().sum(dim=-1, keepdim=True).sqrt()
    return (x[:, :, None] - own[CODEBOOK]).square().sum(dim=-1)


@pytest.mark.parametrize("lengths_of_entries", [(1.0, 1.0), (0.7, 1.3)])
def test_codes_are_the_nearest_entries(
    tmp_path: Path, weights: dict[str, Tensor], lengths_of_entries: tuple[float, float]
) -> None:
    scaled = weights[CODEBOOK] * torch.linspace(*lengths_of_entries, 24)[:, None]  # (C, Q)
    weights = {**weights, CODEBOOK: scaled}
    path = save_beats(tmp_path / "tokenizer.pt", TINY_TOKENIZER, weights)
    audio = encode(BeatsTokenizer.from_published(path), noise(3, 2.0, rate=RATE), LENGTHS)
    # BEATs by itself, from a file with the same weights.
    beats = BeatsEncoder.from_published(save_beats(tmp_path / "b.pt", TINY_BEATS, beats_weights()))
    body = encode(beats, noise(3, 2.0, rate=RATE), LENGTHS)
    assert audio.features.shape == (3, 96, 1)  # 12 time patches of 8 bands
    assert audio.features.dtype == torch.long
    assert torch.equal(audio.mask, body.mask)
    assert not audio.features[~audio.mask].any()
    assert audio.pooled.tolist() == [[1.0]] * 3

    distances = squared_distances(weights, body.features)[body.mask]  # (R, C)
    found, expected = audio.features[audio.mask][:, 0], distances.argmin(dim=-1)
    first, second = distances.topk(2, largest=False).values.unbind(dim=-1)
    clear = second - first > 1e-3  # otherwise the last bits may decide
    assert clear.float().mean() > 0.99
    assert torch.equal(found[clear], expected[clear])
    assert len(found.unique()) > 5
    squares = weights[CODEBOOK].double().square().sum(dim=-1)  # (C,)
    cosines = (1 + squares - distances) / (2 * squares.sqrt())
    if lengths_of_entries == (1.0, 1.0):
        assert torch.equal(found[clear], cosines.argmax(dim=-1)[clear])
    else:
        assert not torch.equal(found[clear], cosines.argmax(dim=-1)[clear])


def test_a_file_of_the_published_size(tmp_path: Path) -> None:
    one = torch.ones(())  # expanded, it takes four bytes in the file
    weights = {name: one.expand(shape) for name, shape in tokenizer_shapes(TOKENIZER).items()}
    assert len(weights) == 250 + 9
    tokenizer = BeatsTokenizer.from_published(save_beats(tmp_path / "t.pt", TOKENIZER, weights))
    layers = 768 * 768 + 768 + 768 * 256 + 256
    assert sum(weight.numel() for weight in tokenizer.parameters()) == (
        90_311_664 + layers + 1024 * 256
    )
    assert (tokenizer.num_codebooks, tokenizer.codebook_size, tokenizer.feature_dim) == (1, 1024, 1)
    assert (tokenizer.sampling_rate, tokenizer.window_seconds) == (RATE, 10.0)
    assert tokenizer.canvas_samples(RATE + 1) == 2 * RATE
    settings = BeatsTokenizer.from_config({"beats_config": {"encoder_layers": 1}})
    assert (settings.codebook_size, tuple(settings.codebook.shape)) == (1024, (1024, 256))


def test_sizes_and_window_come_from_the_file_and_the_call(tmp_path: Path) -> None:
    path = save_beats(tmp_path / "t.pt", TINY_TOKENIZER, tokenizer_weights())
    tokenizer = BeatsTokenizer.from_published(path, window_seconds=30.0)
    assert (tokenizer.codebook_size, tokenizer.config.codebook_dim) == (24, 6)
    assert tokenizer.window_seconds == 30.0
    assert CodeEncoder.from_parts(tokenizer).window_seconds == 30.0
    assert not tokenizer.training
    # Where cfg is silent, the published code has 1024 entries of 256 numbers.
    path = save_beats(tmp_path / "t.pt", TINY_BEATS, tokenizer_weights())
    with pytest.raises(CheckpointError, match=r"quantize.embedding.weight is \(24, 6\) instead of "
                                              r"\(1024, 256\)"):  # fmt: skip
        BeatsTokenizer.from_published(path)


def test_a_clip_depends_neither_on_its_batch_nor_on_what_follows_it(
    tokenizer: BeatsTokenizer,
) -> None:
    waveform = noise(3, 2.0, rate=RATE)  # noise behind every clip
    together = encode(tokenizer, waveform, LENGTHS)
    silent = waveform.clone()
    for row, length in enumerate(LENGTHS):
        silent[row, length:] = 0
    assert torch.equal(encode(tokenizer, silent, LENGTHS).features, together.features)
    for row, length in enumerate(LENGTHS):
        alone = encode(tokenizer, waveform[row : row + 1, :length], [length])
        frames = int(alone.mask.sum())
        assert frames == 8 * (((length - 400) // 160 + 1) // 16)
        assert together.mask[row].sum() == frames
        same_codes(together.features[row, :frames], alone.features[0, :frames])
    # As the captioner runs it, to the bit.
    encoder = CodeEncoder.from_parts(tokenizer, random_encoder("htsat"))
    clips = [noise(1, seconds, rate=48000)[0].numpy() for seconds in (1.2, 1.9, 1.5)]
    windows = [Window(str(i), 0.0, clip) for i, clip in enumerate(clips)]
    (batch,) = window_batches(windows, encoder, 8)
    with torch.inference_mode():
        audio = encode_windows(encoder, [windows[i] for i in batch], torch.device("cpu"))
        for row, i in enumerate(batch):
            alone = encode(encoder, torch.from_numpy(clips[i])[None], [len(clips[i])])
            frames = int(alone.mask.sum())
            assert torch.equal(audio.features[row, :frames], alone.features[0, :frames])
            assert torch.equal(audio.pooled[row], alone.pooled[0])


def test_a_clip_shorter_than_a_patch_has_the_codes_of_one(tokenizer: BeatsTokenizer) -> None:
    audio = encode(tokenizer, noise(1, 0.1, rate=RATE), [1600])
    assert audio.features.shape == (1, 8, 1)
    assert audio.mask.all()


def test_codes_stay_those_of_float32(tokenizer: BeatsTokenizer) -> None:
    waveform = noise(1, 2.0, rate=RATE)
    exact = encode(tokenizer, waveform, [2 * RATE]).features
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encode(tokenizer, waveform, [2 * RATE]).features, exact)
    encoder = CodeEncoder.from_parts(tokenizer).to(torch.bfloat16)
    assert torch.equal(encode(encoder, waveform, [2 * RATE]).features, exact)


def test_saved_and_loaded_again(tmp_path: Path, tokenizer: BeatsTokenizer) -> None:
    waveform = noise(1, 1.0, rate=RATE)
    expected = encode(tokenizer, waveform, [RATE]).features
    tokenizer.save_pretrained(tmp_path / "alone")
    alone = load_saved_model(BeatsTokenizer, tmp_path / "alone")
    assert torch.equal(encode(alone, waveform, [RATE]).features, expected)
    CodeEncoder.from_parts(tokenizer, window_seconds=4.0).save_pretrained(tmp_path / "codes")
    assert sorted(path.suffix for path in (tmp_path / "codes").iterdir()) == [
        ".json",
        ".safetensors",
    ]
    encoder = load_encoder("codes", tmp_path / "codes")
    assert encoder.window_seconds == 4.0
    assert (encoder.num_codebooks, encoder.codebook_size) == (1, 24)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(encode(encoder, waveform, [RATE]).features, expected)


def failure(path: Path, content: Any) -> str:
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        BeatsTokenizer.from_published(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_files_of_other_models(tmp_path: Path) -> None:
    path = tmp_path / "b.pt"
    assert failure(path, {"cfg": TINY_BEATS, "model": beats_weights(TINY_BEATS, 527)}) == (
        "is not a published BEATs tokenizer, it lacks quantize.embedding.weight; files named "
        "BEATs_* have features, not codes: give a file such as Tokenizer_iter3_plus_AS2M.pt"
    )
    assert failure(path, tokenizer_weights()).startswith(
        "is not a published BEATs tokenizer: that holds 'cfg' and 'model', this holds patch_emb"
    )
    missing = tmp_path / "nowhere.pt"
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: there is no such file; download"):
        BeatsTokenizer.from_published(missing)


def test_a_file_that_does_not_fit_its_cfg(tmp_path: Path) -> None:
    path, weights = tmp_path / "t.pt", tokenizer_weights()
    wrong = dict(weights, surplus=torch.ones(1))
    del wrong["quantize_layer.2.bias"]
    wrong[CODEBOOK] = torch.ones(24, 7)
    assert failure(path, {"cfg": TINY_TOKENIZER, "model": wrong}) == (
        "is not a published BEATs tokenizer: lacks quantize_layer.2.bias; has the unknown "
        "surplus; quantize.embedding.weight is (24, 7) instead of (24, 6)"
    )
    name = "encoder.layers.1.self_attn.relative_attention_bias.weight"
    differ = {**weights, name: weights[name] + 1}
    assert failure(path, {"cfg": TINY_TOKENIZER, "model": differ}) == (
        "is not a published BEATs tokenizer: its layers share one relative_attention_bias, here "
        "they differ"
    )
    for change, problem in (
        ({"quant_n": 0}, "its cfg has quant_n=0, which is not possible"),
        ({"quant_dim": "256"}, "its cfg has quant_dim='256', which is not possible"),
        ({"layer_norm_first": True}, "its sizes make no model: deep_norm needs layers that"),
    ):
        content = {"cfg": TINY_TOKENIZER | change, "model": weights}
        assert failure(path, content).startswith(problem)


def test_what_only_its_training_reads_may_be_missing(
    tmp_path: Path, weights: dict[str, Tensor], tokenizer: BeatsTokenizer
) -> None:
    needed = {
        name: value
        for name, value in weights.items()
        if name.startswith("quantize_layer") or "quantize" not in name or name == CODEBOOK
    }
    assert len(needed) == len(weights) - 4
    path = save_beats(tmp_path / "t.pt", TINY_TOKENIZER, needed)
    loaded = BeatsTokenizer.from_published(path).state_dict()
    assert loaded.keys() == tokenizer.state_dict().keys()
    assert all(torch.equal(loaded[name], own) for name, own in tokenizer.state_dict().items())


@pytest.mark.parametrize("name", ["codebook_size", "codebook_dim"])
def test_sizes_below_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0: must be at least 1"):
        BeatsTokenizer({"encoder_layers": 1}, **{name: 0})
