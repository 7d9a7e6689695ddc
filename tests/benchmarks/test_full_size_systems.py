"""The systems of the full-size benchmark: what they compute, and that full size is full size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.benchmarks.tiny_full_size import ARGS, POSITIONS, TOKENS, settings_of, tiny_sizes
from tests.helpers import noise


def test_the_decoders_write_so_many_tokens_one_by_one(
    captioners: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from timed_group import call

    from dac_diffusion.autoregressive import drawing as module

    plain, written = module.decode, []

    def remember(*arguments: Any) -> Any:
        written.append(plain(*arguments))
        return written[-1]

    monkeypatch.setattr(module, "decode", remember)
    settings = [s for s in settings_of() if s.system == "autoregressive"]
    assert len(settings) == 4
    for setting in settings:
        captioner, shapes = captioners[setting.model], []

        def note(_: Any, arguments: Any, named: Any, shapes: list[Any] = shapes) -> None:
            audio = named["encoder_hidden_states"]
            shapes.append((tuple(named["input_ids"].shape), audio.shape[1]))

        hook = captioner.network.model.decoder.register_forward_pre_hook(note, with_kwargs=True)
        results = call(captioner, setting, [(noise(10.0, rate=16000), 16000)] * 2, ARGS)
        hook.remove()
        rows = 2 * (4 if setting.name == "beam 4" else 1)
        # With a KV cache every call sees one token of each caption; and 496 features and one more.
        assert shapes == [((rows, 1), 497)] * TOKENS
        assert written[-1].shape == (2, 1, TOKENS)
        assert (written[-1] > 3).all(), "special tokens in a caption"
        assert [len(result.candidates[0].split()) for result in results] == [TOKENS] * 2
    assert len(written) == 4


@pytest.mark.parametrize("model", ["DAC DiT", "DAC U-ViT"])
def test_the_denoisers_compute_all_positions_and_both_conditions(
    captioners: dict[str, Any], model: str
) -> None:
    from timed_group import call

    captioner = captioners[model]
    settings = [setting for setting in settings_of() if setting.model == model]
    assert [setting.name for setting in settings] == ["17 steps, guidance 2.5", "4 steps", "1 step"]
    for setting, guided, steps in zip(settings, (True, False, False), (17, 4, 1), strict=True):
        seen: list[tuple[tuple[int, ...], int]] = []
        hook = captioner.denoiser.register_forward_hook(
            lambda _, arguments, output, seen=seen: seen.append(
                (tuple(arguments[0].shape), arguments[3].mask.shape[-1])
            )
        )
        (result,) = call(captioner, setting, [(noise(10.0, rate=16000), 16000)], ARGS)
        hook.remove()
        shape = (1, 1, POSITIONS, 16)
        # The null condition is one token, the audio 496 and the pooled one.
        expected = [(shape, 497), (shape, 1)] if guided else [(shape, 497)]
        assert seen == expected * steps
        (text,) = result.candidates
        assert text


def test_the_timesteps_are_the_paper_s(captioners: dict[str, Any]) -> None:
    scheduler = captioners["DAC DiT"].scheduler
    scheduler.set_timesteps(17)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -60))
    assert scheduler.config.renoise


def test_ratios_are_to_the_paper_s_steps_and_to_few() -> None:
    from full_size_systems import reference_settings

    references = reference_settings(tiny_sizes(), 2.5, TOKENS)
    assert {key: (s.model, s.name) for key, s in references.items()} == {
        "ratio": ("BART-base size", "greedy"),
        "ratio_guided": ("DAC DiT", "17 steps, guidance 2.5"),
        "ratio_few": ("DAC DiT", "4 steps"),
    }
    assert all(setting in settings_of() for setting in references.values())


def test_only_the_captioners_asked_for_are_made() -> None:
    from full_size_systems import build_captioners

    names = {"DAC U-ViT", "BART-base size"}
    some = build_captioners(tiny_sizes(), torch.float32, "cpu", "none", seed=0, names=names)
    assert set(some) == names


def test_the_full_sizes() -> None:
    """Counted on "meta", by hand for the decoders; BART-base has the same layers."""
    from full_size_systems import full_size, read_configs

    from dac_diffusion.autoregressive.plain import build_network

    sizes = full_size()
    with torch.device("meta"):
        networks = {name: build_network(c, 30522) for name, c in sizes.networks.items()}
    width, hidden = 768, 3072
    attention = 4 * (width * width + width)
    perceptron = width * hidden + hidden + hidden * width + width
    norm = 2 * width
    encoder_layer = attention + perceptron + 2 * norm
    decoder_layer = 2 * attention + perceptron + 3 * norm
    # Words; on each side places (and 2 that MBart leaves unused), a norm before and one after.
    around = 30522 * width + 2 * ((512 + 2) * width + 2 * norm)
    counts = {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    assert counts == {
        "BART-base size": around + 6 * encoder_layer + 6 * decoder_layer,
        "GPT-2 small size": around + 12 * decoder_layer,
    }
    assert {n.config.activation_function for n in networks.values()} == {"gelu"}
    configs = read_configs(sizes)
    kinds = {name: (c.denoiser.kind, c.denoiser.width, c.text.max_length)
             for name, c in configs.items()}  # fmt: skip
    assert kinds == {"DAC DiT": ("dit", 768, 40), "DAC U-ViT": ("uvit", 768, 40)}
    assert {c.encoder.name for c in configs.values()} == {"beats"}


@pytest.mark.parametrize(("model", "start"), [("BART-base size", 0), ("DAC DiT", 1)])
def test_every_token_that_is_not_special_is_a_word(
    captioners: dict[str, Any], model: str, start: int
) -> None:
    from dac_diffusion.captioning.ranking import texts_of
    from dac_diffusion.text import tokenizer as ids
    from dac_diffusion.text.tokenizer import first_word_position, normalise_caption

    tokenizer = captioners[model].tokenizer
    assert len(tokenizer) == 60
    assert (
        tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id,
    ) == (ids.PAD_ID, ids.UNK_ID, ids.EOS_ID)  # fmt: skip
    assert len(tokenizer.all_special_ids) == 4
    assert first_word_position(tokenizer) == start
    # Two positions, of which the first may be that of [CLS].
    words = torch.arange(4, 60).view(56, 1, 1).expand(-1, -1, 2)
    texts = [text for (text,) in texts_of(tokenizer, words)]
    assert [len(text.split()) for text in texts] == [2 - start] * 56
    assert len({normalise_caption(text) for text in texts} - {""}) == 56
    assert tokenizer("word5 word19", add_special_tokens=False)["input_ids"] == [5, 19]


def test_frequency_pooling_leaves_an_eighth_of_the_features() -> None:
    from full_size_systems import build_captioners

    pooled = build_captioners(tiny_sizes(), torch.bfloat16, "cpu", "mean", seed=0)
    encoder = pooled["DAC DiT"].encoder
    assert encoder is pooled["GPT-2 small size"].encoder
    waveform = torch.from_numpy(noise(10.0, rate=16000))[None]
    audio = encoder(waveform, torch.tensor([160000]))
    assert audio.features.shape == (1, 62, 16)
    assert audio.features.dtype == torch.bfloat16
    assert {c.dtype for c in pooled.values()} == {torch.bfloat16}
