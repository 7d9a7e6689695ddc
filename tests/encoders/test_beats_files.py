"""BEATs from published files: every layout gives the encoder, every fault one clear line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dac_diffusion.encoders.beats import BeatsEncoder
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import CheckpointError, ConfigError
from tests.encoders.published_layouts import (
    BEATS,
    TINY_BEATS,
    TINY_TOKENIZER,
    beats_shapes,
    beats_weights,
    encode,
    noise,
    save_beats,
    tokenizer_weights,
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BeatsEncoder:
    path = tmp_path_factory.mktemp("beats") / "beats.pt"
    return BeatsEncoder.from_published(save_beats(path, TINY_BEATS, beats_weights()))


def test_a_file_of_the_published_size(tmp_path: Path) -> None:
    one = torch.ones(())  # expanded, it takes four bytes in the file
    weights = {name: one.expand(shape) for name, shape in beats_shapes(BEATS).items()}
    assert len(weights) == 250
    assert sum(tensor.numel() for tensor in weights.values()) == 90_354_032
    encoder = BeatsEncoder.from_published(save_beats(tmp_path / "b.pt", BEATS, weights))
    assert sum(weight.numel() for weight in encoder.parameters()) == 90_311_664
    stated = {name: value for name, value in BEATS.items() if name in encoder.config}
    assert {name: encoder.config[name] for name in stated} == stated
    defaults = BeatsEncoder.from_config({"encoder_layers": 1}).config
    assert all(defaults[name] == stated[name] for name in stated if name != "encoder_layers")
    assert (encoder.feature_dim, encoder.pooled_dim) == (768, 768)
    assert (encoder.sampling_rate, encoder.window_seconds) == (16000, 10.0)
    # A tap of length 1 in the direction (1, 1, ...) of 768 * 48 entries.
    expected = torch.full((768, 48, 128), (768 * 48) ** -0.5)
    torch.testing.assert_close(encoder.encoder.pos_conv.weight.data, expected)


def test_a_fine_tuned_file_is_the_same_without_its_classifier(
    tmp_path: Path, encoder: BeatsEncoder
) -> None:
    cfg = TINY_BEATS | {"finetuned_model": True, "predictor_class": 527}
    content = {"cfg": cfg, "model": beats_weights(TINY_BEATS, 527), "label_dict": {0: "/m/09x0r"}}
    torch.save(content, tmp_path / "b.pt")
    loaded = load_encoder("beats", tmp_path / "b.pt", window_seconds=30.0)
    assert loaded.window_seconds == 30.0
    assert not any(weight.requires_grad for weight in loaded.parameters())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_names_of_newer_weight_normalisation_are_read(
    tmp_path: Path, encoder: BeatsEncoder
) -> None:
    weights = beats_weights()
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        tensor = weights.pop(f"encoder.pos_conv.0.{old}")
        weights[f"encoder.pos_conv.0.parametrizations.weight.{new}"] = tensor
    loaded = BeatsEncoder.from_published(save_beats(tmp_path / "b.pt", TINY_BEATS, weights))
    waveform = noise(5000)
    features = encode(loaded, waveform, [5000]).features
    assert torch.equal(features, encode(encoder, waveform, [5000]).features)


def test_what_the_cfg_leaves_out_is_as_in_the_published_code(tmp_path: Path) -> None:
    cfg = {name: value for name, value in TINY_BEATS.items() if name != "max_distance"}
    loaded = BeatsEncoder.from_published(save_beats(tmp_path / "b.pt", cfg, beats_weights()))
    assert loaded.config.max_distance == 1280


@pytest.mark.parametrize(
    "change",
    [
        {"gru_rel_pos": False},
        {"relative_position_embedding": False},
        {"deep_norm": False, "layer_norm_first": True},
        {"conv_bias": True},
        {"activation_fn": "relu"},
        {"conv_pos": 5},
    ],
)
def test_every_setting_of_the_cfg_counts(
    tmp_path: Path, encoder: BeatsEncoder, change: dict[str, Any]
) -> None:
    weights = beats_weights(TINY_BEATS | change)
    if "gru_rel_pos" in change:
        weights = {name: tensor for name, tensor in weights.items() if ".grep_" not in name}
    if "relative_position_embedding" in change:
        weights = {name: tensor for name, tensor in weights.items() if "relative" not in name}
    if "conv_bias" in change:
        weights["patch_embedding.bias"] = torch.linspace(-1, 1, 12)
    loaded = BeatsEncoder.from_published(
        save_beats(tmp_path / "b.pt", TINY_BEATS | change, weights)
    )
    waveform = noise(8000)
    features = encode(loaded, waveform, [8000]).features
    assert features.isfinite().all()
    assert (features - encode(encoder, waveform, [8000]).features).abs().max() > 1e-3


def failure(path: Path, content: Any) -> str:
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        BeatsEncoder.from_published(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_a_file_that_does_not_fit_its_cfg(tmp_path: Path) -> None:
    path, weights = tmp_path / "b.pt", beats_weights()
    wrong = dict(weights, surplus=torch.ones(1))
    del wrong["encoder.layers.1.fc1.bias"]
    wrong["encoder.pos_conv.0.weight_g"] = torch.ones(6)
    assert failure(path, {"cfg": TINY_BEATS, "model": wrong}) == (
        "is not a published BEATs: lacks encoder.layers.1.fc1.bias; has the unknown surplus; "
        "encoder.pos_conv.0.weight_g is (6,) instead of (1, 1, 6)"
    )
    deeper = TINY_BEATS | {"encoder_layers": 3}
    assert failure(path, {"cfg": deeper, "model": weights}).startswith(
        "is not a published BEATs: lacks encoder.layers.2."
    )
    wider = TINY_BEATS | {"encoder_ffn_embed_dim": 50}
    assert failure(path, {"cfg": wider, "model": weights}) == (
        "is not a published BEATs: "
        "encoder.layers.0.fc1.weight is (48, 32) instead of (50, 32), "
        "encoder.layers.0.fc1.bias is (48,) instead of (50,), "
        "encoder.layers.0.fc2.weight is (32, 48) instead of (32, 50), "
        "encoder.layers.1.fc1.weight is (48, 32) instead of (50, 32) and 2 more"
    )


def test_position_biases_that_differ(tmp_path: Path) -> None:
    weights = beats_weights()
    name = "encoder.layers.1.self_attn.relative_attention_bias.weight"
    weights[name] = weights[name] + 1
    assert failure(tmp_path / "b.pt", {"cfg": TINY_BEATS, "model": weights}) == (
        "is not a published BEATs: its layers share one relative_attention_bias, here they differ"
    )


def test_files_of_other_models(tmp_path: Path) -> None:
    path = tmp_path / "b.pt"
    assert failure(path, beats_weights()) == (
        "is not a published BEATs: that holds 'cfg' and 'model', this holds "
        "patch_embedding.weight, layer_norm.weight, layer_norm.bias, post_extract_proj.weight"
    )
    assert failure(path, {"cfg": TINY_TOKENIZER, "model": tokenizer_weights()}) == (
        "is a tokenizer of BEATs, which makes codes; give a file such as "
        "BEATs_iter3_plus_AS2M.pt here, or this one to the codec beats_tokenizer"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"encoder_layers": "12"}, "its cfg has encoder_layers='12', which is not possible"),
        ({"encoder_attention_heads": 0}, "its cfg has encoder_attention_heads=0, which is not"),
        ({"deep_norm": 1}, "its cfg has deep_norm=1, which is not possible"),
        ({"encoder_attention_heads": 5}, "its sizes make no model: a width of 32 cannot be divided "
                                         "among 5 attention heads and 4 groups"),
        ({"layer_norm_first": True}, "its sizes make no model: deep_norm needs layers that"),
        ({"activation_fn": "glu"}, "its sizes make no model: activation_fn='glu' is not written"),
        ({"input_patch_size": 129}, "its sizes make no model: input_patch_size=129: use 1 to 128"),
        ({"max_distance": 4}, "its sizes make no model: 16 buckets do not fit distances up to 4"),
    ],
)  # fmt: skip
def test_a_cfg_that_makes_no_model(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    content = {"cfg": TINY_BEATS | change, "model": beats_weights()}
    assert failure(tmp_path / "b.pt", content).startswith(problem)


def test_an_unknown_frequency_pooling() -> None:
    with pytest.raises(ConfigError, match="frequency_pooling='max' is unknown: use 'none' or 'm"):
        BeatsEncoder(frequency_pooling="max")


def test_saved_and_loaded_it_gives_the_same(tmp_path: Path, encoder: BeatsEncoder) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = BeatsEncoder.from_pretrained(tmp_path).eval()
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == {
        k: v for k, v in encoder.config.items() if k[0] != "_"
    }
    waveform = noise(20000)
    before, after = (encode(model, waveform, [20000]) for model in (encoder, loaded))
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.pooled, after.pooled)
    with safe_open(tmp_path / "diffusion_pytorch_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len(names) == len(beats_shapes(TINY_BEATS)) - 1 - 1  # one bias for both layers, no g
    assert not list(tmp_path.glob("*.bin"))
