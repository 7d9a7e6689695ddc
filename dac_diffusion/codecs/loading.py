"""Codecs by name, and small untrained ones for trials."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from dac_diffusion.encoders.loading import random_encoder, settings_of
from dac_diffusion.errors import ConfigError

CodecName = Literal["encodec", "descript", "beats_tokenizer", "rvq"]

NOISE_SECONDS = 16  # of which untrained codebooks take their entries: 1200 frames


def codec_class(name: str) -> Any:
    """The class of a codec by its name. Raises ConfigError."""
    if name == "encodec":
        from dac_diffusion.codecs.encodec import EncodecCodec

        return EncodecCodec
    if name == "descript":
        from dac_diffusion.codecs.descript import DescriptCodec

        return DescriptCodec
    if name == "beats_tokenizer":
        from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer

        return BeatsTokenizer
    if name == "rvq":
        from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder

        return QuantizedEncoder
    raise ConfigError(
        f"codec_name={name!r} is unknown: use one of {', '.join(get_args(CodecName))}"
    )


def codec_name(codec: Any) -> str:
    """The name under which a codec's class is known. Raises ConfigError."""
    for name in get_args(CodecName):
        if type(codec) is codec_class(name):
            return str(name)
    raise ConfigError(f"{type(codec).__name__} is no codec: use {', '.join(get_args(CodecName))}")


def random_codec(name: str, seed: int = 0, num_codebooks: int | None = None) -> Any:
    """A small untrained codec whose codes follow the sound all the same.

    num_codebooks: of EnCodec 2, 4, 8 or 16, of the Descript codec 1 to 32; None: all, or 4 of rvq.
    Raises ConfigError.
    """
    from dac_diffusion.codecs.encodec import bandwidth_of

    cls = codec_class(name)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if name == "encodec":
            bandwidths = [1.5, 3.0, 6.0, 12.0]
            sizes = {"num_filters": 4, "hidden_size": 16, "target_bandwidths": bandwidths}
            codec = cls(sizes, bandwidth_of(num_codebooks))
            _draw_codebooks(codec)
        elif name == "descript":
            codec = cls({"encoder_hidden_size": 4, "decoder_hidden_size": 16}, num_codebooks)
            _standardise(codec.encoder, codec.encoder.conv2, _noise(codec.sampling_rate))
        elif name == "beats_tokenizer":
            codec = cls(settings_of(random_encoder("beats")), codebook_size=32, codebook_dim=16)
            _take_entries(codec)
        else:
            codec = _quantized_noise(4 if num_codebooks is None else num_codebooks)
    return codec.eval().requires_grad_(False)


def _noise(sampling_rate: int) -> torch.Tensor:
    """Noise (T,) whose loudness changes from one 10th of a second to the next."""
    loudness = 10 ** (-2 * torch.rand(NOISE_SECONDS * 10))
    steps = loudness.repeat_interleave(sampling_rate // 10)  # (T,)
    return steps * torch.randn(len(steps))


def _standardise(encoder: Any, last: Any, waveform: torch.Tensor) -> None:
    """Give an encoder's output mean 0 and variance 1, by its last convolution.

    Of untrained layers it hardly changes, and all sounds would have the same code.
    """
    hidden = encoder(waveform[None, None])[0]  # (D, S)
    mean, deviation = hidden.mean(dim=1), hidden.std(dim=1)
    parts = getattr(last, "parametrizations", None)
    weight = last.weight if parts is None else parts.weight.original0
    weight.div_(deviation[:, None, None])
    last.bias.sub_(mean).div_(deviation)


def _draw_codebooks(codec: Any) -> None:
    """Give EnCodec's codebooks, which are zeros at first, what its encoder makes of noise."""
    waveform = _noise(codec.sampling_rate)
    _standardise(codec.encoder, codec.encoder.layers[-1].conv, waveform)
    left = codec.encoder(waveform[None, None])[0].T  # (S, D)
    for layer in codec.quantizer.layers:
        chosen = torch.randperm(len(left))[: codec.codebook_size]
        layer.codebook.embed.copy_(left[chosen])
        # A part of it only, so that something is left for the next one.
        layer.codebook.embed.mul_(0.7)
        layer.codebook.embed_avg.copy_(layer.codebook.embed)
        left = left - layer.codebook.decode(layer.codebook.encode(left))


def _take_entries(tokenizer: Any) -> None:
    """Give a tokenizer's codebook, which is zeros at first, what its layers make of noise."""
    waveform = _noise(tokenizer.sampling_rate)[None]
    features = tokenizer.encoder(waveform, torch.tensor([waveform.shape[1]])).features[0]  # (S, D)
    vectors = tokenizer.vectors(features)  # (S, Q)
    chosen = torch.randperm(len(vectors))[: tokenizer.codebook_size]
    tokenizer.codebook.copy_(vectors[chosen])


def _quantized_noise(num_codebooks: int) -> Any:
    """A random BEATs whose features of noise a small quantiser was fitted on."""
    from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
    from dac_diffusion.codecs.quantizer_fitting import QuantizerFitting, fit_quantizer
    from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer

    encoder = random_encoder("beats", int(torch.randint(2**31, ())))
    waveform = _noise(encoder.sampling_rate)[None]
    features = encoder(waveform, torch.tensor([waveform.shape[1]])).features[0]  # (S, D)
    quantizer = ResidualQuantizer(encoder.feature_dim, num_codebooks, codebook_size=32)
    fit_quantizer(quantizer, [features], QuantizerFitting(steps=5), progress=False)
    return QuantizedEncoder.from_parts(encoder, quantizer)
