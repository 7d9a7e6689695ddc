"""The full-size speed benchmark, with tiny systems: what it reports, not how fast anything is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.autoregressive.network import AutoregressiveConfig
from dac_diffusion.errors import ConfigError, DacError
from tests.helpers import noise

POSITIONS, TOKENS = 20, 6
TINY = AutoregressiveConfig(
    width=16, encoder_layers=1, decoder_layers=2, heads=2, feed_forward=32, max_frames=512
)
ARGS = argparse.Namespace(seed=0)  # what `timed_group.call` reads of the command line
OVERRIDES = ("denoiser.width=16", "denoiser.heads=2", "denoiser.depth=2", "text.max_length=20",
             "text.split_bert.split_layer=1")  # fmt: skip


def tiny_sizes() -> Any:
    from dataclasses import replace

    from full_size_systems import full_size

    full = full_size()
    bart, gpt = full.networks
    return replace(
        full,
        networks={bart: TINY, gpt: replace(TINY, encoder_layers=0)},
        bert={"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 2, "intermediate_size": 32},
        encoder={"encoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16,
                 "encoder_attention_heads": 2, "embed_dim": 8, "conv_pos_groups": 4},
        overrides=OVERRIDES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        from full_size_systems import build_captioners

        return build_captioners(tiny_sizes(), torch.float32, "cpu", "none", seed=0)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    import full_size

    monkeypatch.setattr(sys, "argv", ["full_size.py", "--threads", "1", *arguments])
    full_size.main(tiny_sizes())


def settings_of(tokens: int = TOKENS) -> list[Any]:
    from full_size_systems import compared_settings

    return compared_settings(tiny_sizes(), [4, 1], [17], 2.5, tokens)


def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of noise in place of rendered scenes."""
    import full_size

    def make(count: int, seed: int, rate: int) -> tuple[list[Any], float]:
        return [(noise(0.5, seed=i, rate=rate), rate) for i in range(count)], 0.0

    monkeypatch.setattr(full_size, "make_clips", make)


def test_rows_and_what_follows_from_their_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short_clips(monkeypatch)
    output = tmp_path / "full_size.json"
    options = ["--dtypes", "float32", "--batch-sizes", "1", "2", "--rounds", "3"]
    options += ["--steps", "4", "1", "--guided-steps", "5"]
    options += ["--fixed-length", str(TOKENS), "--output", str(output)]
    run(monkeypatch, *options)
    content = json.loads(output.read_text(encoding="utf-8"))
    rows = content["table"]
    names = [("BART-base size", "greedy"), ("BART-base size", "beam 4"),
             ("GPT-2 small size", "greedy"), ("GPT-2 small size", "beam 4")]  # fmt: skip
    for model in ("DAC DiT", "DAC U-ViT"):
        names += [(model, n) for n in ("5 steps, guidance 2.5", "4 steps", "1 step")]
    assert [(r["dtype"], r["batch_size"], r["model"], r["setting"]) for r in rows] == [
        ("float32", size, *name) for size in (1, 2) for name in names
    ]
    calls = {"greedy": TOKENS, "beam 4": TOKENS, "4 steps": 4, "1 step": 1}
    for row in rows:
        check_row(row, content["raw"])
        # On a CPU the denoiser takes one clip at a time, the decoder all of them.
        together = row["system"] == "autoregressive"
        expected = calls.get(row["setting"], 10) * (1 if together else row["batch_size"])
        assert row["network_calls"] == expected
    assert content["markdown"] in capsys.readouterr().out
    assert content["markdown"].count("| 5 steps, guidance 2.5 |") == 4
    assert set(content["systems"]) == {name for name, _ in names}
    assert "peak GB" not in content["markdown"]
    assert content["settings"]["fixed_length"] == TOKENS
    assert content["command"].startswith("python benchmarks/full_size.py --threads 1")


def check_row(row: dict[str, Any], raw: dict[str, Any]) -> None:
    """APS, TPS, ratio and parts, computed again from the measurements of this row and the first."""

    def measured(model: str, setting: str) -> list[dict[str, float]]:
        measurements: list[dict[str, float]] = raw[f"{model} {setting} {row['group']}"][0][
            "measured"
        ]
        return measurements

    def counted(one: dict[str, float]) -> float:
        return one["encoding"] + one["generation"] + one["text"]

    own = measured(row["model"], row["setting"])
    first = measured("BART-base size", "greedy")
    assert len(own) == row["rounds"] == 3
    assert row["aps"] == pytest.approx(np.median([row["batch_size"] / counted(o) for o in own]))
    assert row["tps"] == pytest.approx(TOKENS * row["aps"])
    ratios = [counted(f) / counted(o) for f, o in zip(first, own, strict=True)]
    assert row["ratio"] == pytest.approx(np.median(ratios))
    assert row["aps_low"] <= row["aps"] <= row["aps_high"]
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    for one in own:
        assert 0 < one["features"] < one["encoding"]
        assert counted(one) < one["call"]
    assert row["parameters"] == sum(row["parameters_by_part"].values())
    assert row["peak_memory"] is None


def test_a_group_that_was_kept_is_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size

    short_clips(monkeypatch)
    options = ["--dtypes", "bfloat16", "--batch-sizes", "1", "--rounds", "1", "--steps", "1"]
    options += ["--guided-steps", "1", "--folder", str(tmp_path / "kept")]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run(monkeypatch, *options, "--output", str(first))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["bfloat16_K1_B1.json"]

    def fail(*_: Any) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr(full_size, "time_group", fail)
    run(monkeypatch, *options, "--output", str(second))
    tables = [json.loads(path.read_text(encoding="utf-8"))["table"] for path in (first, second)]
    assert tables[0] == tables[1]
    assert {row["dtype"] for row in tables[0]} == {"bfloat16"}
    with pytest.raises(AssertionError, match="timed again"):
        run(monkeypatch, *options, "--fixed-length", "5")


def test_the_decoders_write_so_many_tokens_one_by_one(
    captioners: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from timed_group import call

    from dac_diffusion.autoregressive import captioner as module

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


def test_on_cuda_the_memory_is_of_the_call_and_its_own_weights(
    captioners: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size
    import timed_group

    monkeypatch.setattr(timed_group, "peak_memory", lambda device, call: (call(), 5e8))
    setting = settings_of()[0]
    captioner = captioners[setting.model]
    args = argparse.Namespace(seed=0, fixed_length=TOKENS)
    one = timed_group.time_call(captioner, setting, [(noise(0.5, rate=16000), 16000)], args)
    parts = (captioner.encoder, captioner.projection, captioner.network, captioner.scorer)
    weights = sum(4 * t.numel() for p in parts for t in (*p.parameters(), *p.buffers()))
    # The bytes of whole numbers such as indices differ from those of float32.
    assert one["peak_memory"] == pytest.approx(5e8 + weights, abs=20000)
    assert weights > 100000
    row = dict.fromkeys(full_size.COLUMNS, 1.0)
    assert list(full_size.shown_columns([row])) == list(full_size.COLUMNS)


def test_millions_of_parameters(captioners: dict[str, Any]) -> None:
    from full_size import parameter_rows
    from stopwatch import parameters_by_part

    rows = [
        {"model": m, "parameters_by_part": parameters_by_part(c)} for m, c in captioners.items()
    ]
    bart, _, dit, _ = parameter_rows([*rows, *rows])
    assert bart["latent_space"] is None
    both = (captioners["BART-base size"].projection, captioners["BART-base size"].network)
    assert bart["writing"] == sum(p.numel() for part in both for p in part.parameters()) / 1e6
    assert dit["total"] == pytest.approx(dit["encoder"] + dit["writing"] + dit["latent_space"])
    assert dit["encoder"] == bart["encoder"]


def test_the_timesteps_are_the_paper_s(captioners: dict[str, Any]) -> None:
    scheduler = captioners["DAC DiT"].scheduler
    scheduler.set_timesteps(17)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -60))
    assert scheduler.config.renoise


def test_the_full_sizes() -> None:
    """Counted on "meta", by hand for the decoders; BART-base has the same layers."""
    from full_size_systems import full_size, read_configs

    from dac_diffusion.autoregressive.network import build_network

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


def test_the_defaults_are_those_of_the_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size

    monkeypatch.setattr(sys, "argv", ["full_size.py"])
    args = full_size.parse_arguments()
    assert (args.dtypes, list(args.batch_sizes)) == (["float32", "bfloat16"], [1, 8])
    assert (args.steps, args.guided_steps, args.guidance_scale) == ([17, 4, 1], [17], 2.5)
    assert (args.fixed_length, args.frequency_pooling) == (12, "none")
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--device", "cuda"])
    assert list(full_size.parse_arguments().batch_sizes) == [1, 8, 32, 128]
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--quick"])
    args = full_size.parse_arguments()
    assert (args.dtypes, args.batch_sizes, args.rounds) == (["float32"], [1], 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fixed-length", "19"], "--fixed-length 19: the denoiser's positions hold 18 words"),
        (["--steps", "1001"], "at most 1000"),
        (["--guided-steps", "5", "2000"], "at most 1000"),
        (["--device", "abacus"], "--device abacus: cannot be used here"),
        (["--device", "meta"], "--device meta: only cpu and cuda can be timed"),
    ],
)
def test_what_cannot_be_timed_is_said_before_the_work(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size

    monkeypatch.setattr(full_size, "time_all", lambda *_: pytest.fail("began"))
    with pytest.raises(ConfigError) as error:
        run(monkeypatch, *options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_output_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size

    monkeypatch.setattr(full_size, "time_all", lambda *_: pytest.fail("began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DacError, match="file"):
        run(monkeypatch, "--output", str(tmp_path / "file" / "full_size.json"))


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_numbers_are_whole_and_from_1(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, f"--batch-sizes={value}")
    assert "give a whole number from 1" in capsys.readouterr().err
