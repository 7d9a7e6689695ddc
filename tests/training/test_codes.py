"""The encoder of codes that a published config asks for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.configuration import load_config
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.training.codes import with_code_encoder
from dac_diffusion.training.settings import TrainingConfig
from tests.encoders.published_layouts import TINY_BEATS, save_beats, tokenizer_weights
from tests.helpers import noise

CONFIGS = Path(__file__).parents[2] / "configs"


def test_clap_art_with_a_single_layer(tmp_path: Path) -> None:
    """All codes of BEATs' tokenizer, which has 1024 entries, and the vector of `encoder`."""
    cfg = TINY_BEATS | {"quant_n": 1024, "quant_dim": 6}
    path = save_beats(tmp_path / "tokenizer.pt", cfg, tokenizer_weights(cfg))
    # The published CLAP cannot be made from nothing, so another one stands in for it.
    changes = ["encoder.name=htsat", "encoder.weights=random", f"codec.weights={path}"]
    config = load_config(
        TrainingConfig,
        CONFIGS / "clap_art_single_layer.yaml",
        [*changes, f"output_dir={tmp_path / 'run'}"],
    )
    made = with_code_encoder(config, progress=False, is_main=True).encoder
    assert made.name == "codes"
    encoder = load_encoder("codes", str(made.weights))
    assert isinstance(encoder, CodeEncoder)
    assert isinstance(encoder.codec, BeatsTokenizer)
    assert encoder.config.sequence_name == "htsat"
    waveform = torch.from_numpy(noise(2.0, rate=encoder.sampling_rate))[None]
    with torch.inference_mode():
        audio = encoder(waveform, torch.tensor([waveform.shape[1]]))
    assert audio.features.shape == (1, 96, 1)
    assert 24 < audio.features.max() < 1024


def test_the_single_layer_config_is_clap_arts_but_for_its_codes() -> None:
    one, many = (
        load_config(TrainingConfig, CONFIGS / f"{name}.yaml")
        for name in ("clap_art_single_layer", "clap_art")
    )
    changed = {f.name for f in fields(one) if getattr(one, f.name) != getattr(many, f.name)}
    assert changed == {"output_dir", "data", "encoder", "codec"}
    assert (one.codec.name, one.codec.num_codebooks, one.codec.codebook_size) == (
        "beats_tokenizer",
        1,
        1024,
    )
    # The vector is the same CLAP's, from the place where it is the only encoder.
    assert (one.codec.sequence, many.codec.sequence) == ("encoder", "sequence_encoder")
    assert one.encoder == many.codec.sequence_encoder
    assert one.data.training == many.data.training
    assert one.data.features_dir != many.data.features_dir
