"""LaionClapEncoder against the package laion-clap; `make test-laion-clap` sets it all up."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_hub_cache import MARK  # beside this file; laion-clap brings a package named tests
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.laion_clap import LaionClapEncoder, load_laion_text_encoder
from dac_diffusion.errors import CheckpointError

SPEC = find_spec("laion_clap")
READY = SPEC is not None and SPEC.origin is not None and os.environ.get("HF_HOME")
if not READY or not (Path(os.environ["HF_HOME"]) / MARK).is_file():
    pytest.skip("needs laion-clap and small models: make test-laion-clap", allow_module_level=True)

WINDOW = 480000
MODELS = [("HTSAT-tiny", False), ("HTSAT-tiny", True), ("HTSAT-base", False)]
SIZES: dict[str, dict[str, Any]] = {
    "HTSAT-tiny": {},
    "HTSAT-base": {"patch_embeds_hidden_size": 128, "hidden_size": 1024, "depths": [2, 2, 12, 2]},
}
TRANSFORMERS_NAMES = {
    "audio_branch.": "clap.audio_model.audio_encoder.",
    "audio_projection.0": "clap.audio_projection.linear1",
    "audio_projection.2": "clap.audio_projection.linear2",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "bn0": "batch_norm",
}
CAPTIONS = ["a dog barks", "rain on a roof while the dog is barking and barking", "", "rain"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=MODELS, ids=["tiny", "tiny-fused", "base"])
def theirs(request: pytest.FixtureRequest) -> Any:
    """A CLAP_Module whose every weight is random but for those of the log-mel."""
    from laion_clap import CLAP_Module

    audio_model, fused = request.param
    torch.manual_seed(0)
    clap = CLAP_Module(enable_fusion=fused, amodel=audio_model, tmodel="roberta", device="cpu")
    with torch.no_grad():
        for name, weight in clap.model.named_parameters():
            if "_extractor." not in name:
                weight.add_(0.02 * torch.randn(weight.shape))
        bins = clap.model.audio_branch.bn0
        bins.running_mean.copy_(-30 + 5 * torch.randn(64))
        bins.running_var.copy_(100 + 50 * torch.rand(64))
    return clap.eval()


@pytest.fixture(scope="module")
def path(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the format of the published files."""
    weights = {f"module.{name}": value for name, value in theirs.model.state_dict().items()}
    weights["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    content = {"epoch": 45, "name": "630k", "state_dict": weights, "best": np.float64(0.25)}
    path = tmp_path_factory.mktemp("laion") / "630k-best.pt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def encoder(path: Path) -> LaionClapEncoder:
    return LaionClapEncoder.from_published(path)


def noise(length: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def encode(encoder: LaionClapEncoder, clips: list[Tensor], canvas: int = WINDOW) -> AudioFeatures:
    waveform = torch.stack([torch.nn.functional.pad(c, (0, canvas - len(c))) for c in clips])
    found: AudioFeatures = encoder(waveform, torch.tensor([len(clip) for clip in clips]))
    return found


def changed(encoder: LaionClapEncoder, **settings: Any) -> LaionClapEncoder:
    before = {name: value for name, value in encoder.config.items() if not name.startswith("_")}
    other = LaionClapEncoder(**{**before, **settings})
    other.load_state_dict(encoder.state_dict())
    return other.eval()


@pytest.mark.parametrize("length", [WINDOW, WINDOW - 1, 300000, 70000])
def test_the_embedding_is_that_of_the_package(
    theirs: Any, encoder: LaionClapEncoder, length: int
) -> None:
    expected = theirs.get_audio_embedding_from_data(noise(length)[None].numpy(), use_tensor=False)
    pooled = encode(encoder, [noise(length)]).pooled
    torch.testing.assert_close(pooled, torch.from_numpy(expected), rtol=0, atol=1e-5)
    assert (encode(encoder, [noise(length, seed=1)]).pooled - pooled).abs().max() > 1e-3
    assert encoder.config.enable_fusion == theirs.enable_fusion


@torch.inference_mode()
def test_the_features_are_its_fine_grained_embedding(
    theirs: Any, encoder: LaionClapEncoder
) -> None:
    from laion_clap.training.data import get_audio_features

    unrounded = changed(encoder, quantize=False)
    clip = noise(300000)
    fused = theirs.enable_fusion
    sample = get_audio_features(
        {},
        clip,
        WINDOW,
        "fusion" if fused else "rand_trunc",
        "repeatpad",
        theirs.model_cfg["audio_cfg"],
    )
    batch = {name: value[None] for name, value in sample.items()}
    found = theirs.model.audio_branch(batch, device="cpu")["fine_grained_embedding"]
    frames = found[:, ::32]  # each is there 32 times
    every = encode(unrounded, [clip]).features
    assert every.shape == (1, 64, encoder.feature_dim)
    torch.testing.assert_close((every[:, ::2] + every[:, 1::2]) / 2, frames, rtol=0, atol=1e-4)
    mean = encode(changed(unrounded, frequency_pooling="mean"), [clip]).features
    torch.testing.assert_close(mean, frames, rtol=0, atol=1e-4)
    assert frames.std() > 0.1


def named_by_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """laion-clap's audio weights under the names of HtsatEncoder, without its tagging head."""
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in TRANSFORMERS_NAMES.items():
            name = name.replace(theirs, ours)
        if "attn.qkv" in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.self.{part}")] = third
        elif not name.endswith("attn_mask") and "tscam_conv" not in name and ".head." not in name:
            renamed[name.replace("attn.", "attention.self.")] = value
    return renamed


def test_transformers_model_of_the_same_weights_gives_the_same(encoder: LaionClapEncoder) -> None:
    settings = {"enable_fusion": encoder.config.enable_fusion}
    other = HtsatEncoder(clap_config={**settings, **SIZES[encoder.config.audio_model]}).eval()
    other.load_state_dict(named_by_transformers(encoder.state_dict()))
    clip = noise(300000)
    ours = encode(changed(encoder, quantize=False), [clip])
    with torch.inference_mode():
        theirs = other(clip[None], torch.tensor([len(clip)]))
    torch.testing.assert_close(ours.features, theirs.features, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.pooled, theirs.pooled, rtol=0, atol=1e-5)


def test_a_clip_does_not_depend_on_its_batch_or_on_padding(encoder: LaionClapEncoder) -> None:
    clips = [noise(length, seed=length) for length in (300000, 70000, WINDOW)]
    together, reverse = encode(encoder, clips), encode(encoder, clips[::-1])
    assert torch.equal(reverse.features.flip(0), together.features)
    assert torch.equal(reverse.pooled.flip(0), together.pooled)
    for index, clip in enumerate(clips):
        followed = torch.cat([clip, torch.ones(2 * WINDOW - len(clip))])[None]
        with torch.inference_mode():
            alone = encoder(followed, torch.tensor([len(clip)]))
        torch.testing.assert_close(alone.features[0], together.features[index], rtol=0, atol=1e-4)
        torch.testing.assert_close(alone.pooled[0], together.pooled[index], rtol=0, atol=1e-5)


def test_of_a_longer_clip_the_first_ten_seconds_are_heard(encoder: LaionClapEncoder) -> None:
    long = noise(12 * 48000)
    found = []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        found.append(encode(encoder, [long], canvas=encoder.canvas_samples(len(long))))
    assert torch.equal(found[0].features, found[1].features)
    assert torch.equal(found[0].features, encode(encoder, [long[:WINDOW]]).features)


def test_text_vectors_are_those_of_the_package(theirs: Any, path: Path) -> None:
    expected = torch.from_numpy(theirs.get_text_embedding(list(CAPTIONS), use_tensor=False))
    vectors = load_laion_text_encoder(path)(CAPTIONS)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    assert torch.cdist(vectors, vectors).fill_diagonal_(1).min() > 1e-2


def test_saved_it_needs_neither_its_file_nor_a_tokenizer(
    encoder: LaionClapEncoder, tmp_path: Path
) -> None:
    encoder.save_pretrained(tmp_path / "saved")
    program = """
import sys, torch
from safetensors.torch import load_file
from dac_diffusion.encoders.laion_clap import LaionClapEncoder
encoder = LaionClapEncoder.from_config(LaionClapEncoder.load_config(sys.argv[1])).eval()
encoder.load_state_dict(load_file(sys.argv[1] + "/diffusion_pytorch_model.safetensors"))
assert "laion_clap" not in sys.modules  # importing it loads tokenizers
waveform = 0.1 * torch.randn(1, 480000, generator=torch.Generator().manual_seed(0))
torch.set_num_threads(1)
with torch.inference_mode():
    torch.save(encoder(waveform, torch.tensor([480000])).features, sys.argv[2])
"""
    empty = {**os.environ, "HF_HOME": str(tmp_path / "no-cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, str(tmp_path / "saved"), str(tmp_path / "out.pt")]
    subprocess.run(command, check=True, env=empty)
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(found, encode(encoder, [noise(WINDOW)]).features)
    by_library = LaionClapEncoder.from_pretrained(tmp_path / "saved").eval()
    for name, weight in by_library.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name])
    mapped = encode(by_library, [noise(WINDOW)]).features
    torch.testing.assert_close(mapped, found, rtol=0, atol=1e-4)


def test_bfloat16_keeps_the_front_end_in_float32(encoder: LaionClapEncoder) -> None:
    half = changed(encoder).to(torch.bfloat16)
    clip = noise(WINDOW)
    assert torch.equal(half.log_mel(clip[None]), encoder.log_mel(clip[None]))
    audio = encode(half, [clip])
    assert audio.features.dtype == audio.pooled.dtype == torch.bfloat16
    assert (audio.pooled.float() * encode(encoder, [clip]).pooled).sum() > 0.98


def test_files_that_differ_from_the_package_are_refused(path: Path, tmp_path: Path) -> None:
    content = torch.load(path, weights_only=False)
    weights = content["state_dict"]
    removed = weights.pop("module.audio_branch.norm.weight")
    torch.save(content, tmp_path / "lacks.pt")
    with pytest.raises(CheckpointError, match=r"lacks audio_branch\.norm\.weight"):
        LaionClapEncoder.from_published(tmp_path / "lacks.pt")
    weights["module.audio_branch.norm.weight"] = removed
    fused = any("fusion_model" in name for name in weights)
    weights["module.audio_branch.logmel_extractor.melW"] *= 1.1
    torch.save(content, tmp_path / "bands.pt")
    if fused:  # whose log-mel never was the network's
        LaionClapEncoder.from_published(tmp_path / "bands.pt")
    else:
        with pytest.raises(CheckpointError, match="has other mel bands than published CLAP"):
            LaionClapEncoder.from_published(tmp_path / "bands.pt")
