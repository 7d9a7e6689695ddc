"""The published systems of the full-size benchmark: that they are what their configs say."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from tests.benchmarks.tiny_full_size import TOKENS, tiny_published
from tests.helpers import noise

ARGS = argparse.Namespace(seed=0, fixed_length=TOKENS)
NAMES = ["enclap", "enclap_plus_plus", "enclap_plus_plus_large", "clap_art", "recap", "ced_bart",
         "1b", "3b", "7b"]  # fmt: skip
CODES = NAMES[:4]
CLIPS = [(noise(2.0, seed=seed, rate=48000), 48000) for seed in range(2)]


@pytest.fixture(scope="module")
def build() -> Callable[[str], Any]:
    """Makes a tiny system by its name, once."""

    @cache
    def make(name: str) -> Any:
        from full_size_building import build_published

        return build_published(system_of(name), tiny_published(), torch.float32, "cpu", 0)

    return make


def system_of(name: str) -> Any:
    from full_size_published import LLAMAS, PUBLISHED

    return {**PUBLISHED, **LLAMAS}[name]


def settings_of(name: str) -> list[Any]:
    from full_size_published import published_settings, read_config

    system = system_of(name)
    return published_settings(system, read_config(system, tiny_published()), TOKENS)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_writes_so_many_tokens_in_so_many_calls(
    name: str, build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from timed_group import time_call

    from dac_diffusion.autoregressive import drawing as module

    plain, written = module.decode, []

    def remember(*arguments: Any) -> Any:
        written.append(plain(*arguments))
        return written[-1]

    monkeypatch.setattr(module, "decode", remember)
    captioner = build(name)
    special = torch.tensor(captioner.tokenizer.all_special_ids)
    for setting in settings_of(name):
        one = time_call(captioner, setting, CLIPS, ARGS)
        # The likelihood of ranked captions is one call more.
        assert one["network_calls"] == TOKENS + setting.ranked
        assert one["tokens"] == 2 * TOKENS
        ids = written.pop()[..., -TOKENS:]  # behind BART's <s>
        assert ids.shape == (2, 30 if setting.ranked else 1, TOKENS)
        assert not torch.isin(ids, special).any(), "an end, or padding"
        assert 0 < one["features"] < one["encoding"]
        assert ("retrieval" in one) == (name == "recap")
        if name == "recap":
            assert 0 < one["retrieval"] < one["encoding"]
    assert not written


@pytest.mark.parametrize("name", NAMES)
def test_the_decoding_is_the_config_s(name: str) -> None:
    names = {setting.name: setting.call for setting in settings_of(name)}
    greedy = names.pop("greedy")
    assert greedy["decoding"] == "greedy"
    expected = {
        "enclap": {"beam 4"},
        "enclap_plus_plus": {"beam 4", "nucleus, best of 30"},
        "enclap_plus_plus_large": {"beam 4", "nucleus, best of 30"},
        "clap_art": {"beam 4"},
        "recap": {"beam 3"},
    }
    assert set(names) == expected.get(name, {"beam 2"})
    first = int(name in {*CODES, "ced_bart"})  # BART's <s> is given
    for call in (greedy, *names.values()):
        assert (call["min_length"], call["max_length"]) == (TOKENS, TOKENS + first)
    for name_of, call in names.items():
        assert ("likelihood_weight" in call) == (name_of != "nucleus, best of 30")


def test_clap_s_text_side_ranks_where_ranking_counts(build: Callable[[str], Any]) -> None:
    captioner = build("enclap_plus_plus")
    assert type(captioner.scorer).__name__ == "ClapScorer"
    assert captioner.scorer.tokenizer is captioner.tokenizer
    assert type(build("clap_art").scorer).__name__ == "AudioTextScorer"


def test_the_captioners_keep_their_configs_settings(build: Callable[[str], Any]) -> None:
    assert build("enclap").config.no_repeat_ngram == 3
    plus_plus = build("enclap_plus_plus").config
    assert (plus_plus.audio_text_weight, plus_plus.likelihood_weight) == (0.6, 0.4)
    assert (plus_plus.temperature, plus_plus.top_p, plus_plus.error_threshold) == (0.5, 0.95, 0.9)
    recap = build("recap").config
    assert (recap.length_penalty, recap.early_stopping) == (0.0, True)
    assert (recap.retrieved, recap.search_width, recap.retrieval_space) == (4, 15, "clap")


@pytest.mark.parametrize(
    ("name", "codebooks", "frames"),
    [("enclap", 16, 750), ("enclap_plus_plus", 32, 750), ("clap_art", 16, 496)],
)
def test_codes_of_10_seconds(
    name: str, codebooks: int, frames: int, build: Callable[[str], Any]
) -> None:
    captioner = build(name)
    encoder = captioner.encoder
    assert encoder.sampling_rate == 48000
    waveform = torch.from_numpy(noise(10.0, rate=48000))[None]
    audio = encoder(waveform, torch.tensor([480000]))
    assert audio.features.shape == (1, frames, codebooks)
    assert audio.pooled.shape == (1, 8)
    assert captioner.encode(audio).hidden.shape == (1, frames + 3, 16)
    assert captioner.network.config.encoder_positions_shifted


def test_the_prompts(build: Callable[[str], Any]) -> None:
    """RECAP's has four captions of the datastore, Llama's and BART's the code's words."""
    recap = build("recap")
    waveform = torch.from_numpy(noise(10.0, rate=48000))[None]
    audio = recap.encoder(waveform, torch.tensor([480000]))
    assert audio.features.shape == (1, 64, 64)
    (ids,) = recap.prompts(audio).left
    text = recap.tokenizer.decode(ids)
    assert text.startswith("Similar audios sound like\n\nA ")
    assert text.endswith("This audio sounds like ")
    assert text.count(".\n\n") == 4
    for caption in text.split("\n\n")[1:-1]:
        assert len(recap.tokenizer(caption, add_special_tokens=False)["input_ids"]) == 12
    for name in ("1b", "ced_bart"):
        captioner = build(name)
        left, right = (
            captioner.tokenizer.decode(ids, skip_special_tokens=True)
            for ids in (captioner.config.prompt_left, captioner.config.prompt_right)
        )
        assert (left, right) == ("Describe the detail of this audio:", "\n---\nDetailed: ")
    ced = build("1b").encoder
    audio = ced(torch.from_numpy(noise(10.0, rate=16000))[None], torch.tensor([160000]))
    embeddings, mask = build("1b").projection(audio)
    assert embeddings.shape == (1, 14, 16)  # 248 features in windows of 17
    assert mask.all()


@pytest.mark.parametrize(
    ("kind", "size", "specials"),
    [
        ("bart", 50265, {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 50264}),
        ("gpt2", 50257, {"!": 0, ".": 13, "<|endoftext|>": 50256}),
        ("llama", 32000, {"<unk>": 0, "<s>": 1, "</s>": 2}),
    ],
)
def test_the_tokenizers_have_the_published_ids(
    kind: Any, size: int, specials: dict[str, int]
) -> None:
    from full_size_words import make_byte_level_tokenizer, random_captions

    from dac_diffusion.autoregressive.retrieval_prompt import spells_published_prompt

    tokenizer = make_byte_level_tokenizer(kind, size)
    assert len(tokenizer) == size
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in specials} == specials
    assert set(tokenizer.all_special_ids) == set(specials.values())
    assert spells_published_prompt(tokenizer)
    captions = random_captions(50, torch.Generator().manual_seed(0))
    assert len(set(captions)) == 50
    assert {len(ids) for ids in tokenizer(captions, add_special_tokens=False)["input_ids"]} == {11}


def test_the_full_sizes() -> None:
    """Counted on "meta" against the published numbers of parameters."""
    from full_size_llama import num_weights, weights_per_token
    from full_size_published import published_full_size
    from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel

    from dac_diffusion.ranking.clap_similarity import ClapScorer

    networks = published_full_size().networks
    with torch.device("meta"):
        made = {
            "bart_base": BartForConditionalGeneration(BartConfig(**networks["bart_base"])),
            "bart_large": BartForConditionalGeneration(BartConfig(**networks["bart_large"])),
            "gpt2": GPT2LMHeadModel(GPT2Config(**networks["gpt2"])),
            "clap_text": ClapScorer(published_full_size().clap_text),
        }
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()}
    roberta, projection = 124_645_632, 768 * 512 + 512 + 512 * 512 + 512
    assert counts.pop("clap_text") == roberta + projection
    assert counts == {"bart_base": 139_420_416, "bart_large": 406_291_456, "gpt2": 124_439_808}
    llamas = {name: num_weights(networks[f"llama_{name}"]) for name in ("1b", "3b", "7b")}
    assert llamas == {"1b": 1_100_048_384, "3b": 3_426_473_600, "7b": 6_738_415_616}
    assert weights_per_token(networks["llama_7b"]) == 6_738_415_616 - 32000 * 4096


def test_in_bfloat16_codes_stay_what_they_are(build: Callable[[str], Any]) -> None:
    from full_size_building import build_published

    half = build_published(system_of("clap_art"), tiny_published(), torch.bfloat16, "cpu", 0)
    assert half.network.dtype == half.projection.dtype == torch.bfloat16
    waveform = torch.from_numpy(noise(2.0, rate=48000))[None]
    codes = [c.encoder(waveform, torch.tensor([96000])).features for c in (half, build("clap_art"))]
    assert torch.equal(*codes)
    assert len(codes[0].unique()) > 16  # a random codebook, not one of zeros


def test_parameters_by_what_they_are(build: Callable[[str], Any]) -> None:
    from full_size_rows import parameters_of

    def count(*modules: Any) -> int:
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    captioner = build("clap_art")
    encoder, parts = captioner.encoder, parameters_of(captioner)
    assert parts == {
        "codec": 16 * 1024 * 16 + 2 * 16,
        "encoder": count(encoder.codec.encoder),
        "clap": count(encoder.sequence_encoder),
        "projection": count(captioner.projection),
        "network": count(captioner.network),
    }
    parts = parameters_of(build("enclap_plus_plus"))
    assert set(parts) == {"codec", "clap", "projection", "network"}
    assert parts["codec"] == count(build("enclap_plus_plus").encoder.codec)
    parts = parameters_of(build("recap"))
    assert set(parts) == {"encoder", "projection", "network"}


def test_what_decoding_remembers_is_the_size_of_the_kv_cache(build: Callable[[str], Any]) -> None:
    """Against the tensors of transformers' own cache."""
    from full_size_groups import cache_bytes, heard_places
    from timed_group import call

    for name in ("enclap", "1b"):
        captioner = build(name)
        places = heard_places(captioner)
        assert places == {"enclap": 753, "1b": 32}[name]
        greedy, beam = settings_of(name)
        caches: list[Any] = []
        network = captioner.network
        inner = network.model.decoder if name == "enclap" else network.model
        hook = inner.register_forward_hook(
            lambda *call, caches=caches: caches.append(call[-1].past_key_values)
        )
        call(captioner, beam, [(noise(10.0, rate=48000), 48000)] * 2, ARGS)
        hook.remove()
        found = sum(tensor.numel() * 4 for tensor in tensors_of(caches[-1]))
        at_most = cache_bytes(network, beam, 2, places)
        assert 0.95 * at_most < found <= at_most
        assert cache_bytes(network, greedy, 2, places) == at_most / beam.call["num_beams"]
        assert cache_bytes(network, greedy, 128, places) == 16 * cache_bytes(
            network, greedy, 2, places
        )  # 32 clips at a time


def tensors_of(cached: Any) -> list[torch.Tensor]:
    """Keys and values of all layers, of cross-attention as well."""
    caches = [cached]
    if hasattr(cached, "cross_attention_cache"):
        caches = [cached.self_attention_cache, cached.cross_attention_cache]
    return [t for each in caches for layer in each.layers for t in (layer.keys, layer.values)]


def test_what_would_not_fit_is_named_and_left_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size_groups
    from full_size_groups import Timed, cache_bytes, heard_places, settings_that_fit

    settings = settings_of("enclap_plus_plus")
    captioner = build("enclap_plus_plus")
    system = system_of("enclap_plus_plus")
    captioners, timed = {system.title: captioner}, Timed("key", settings, system)
    most = cache_bytes(captioner.network, settings[2], 32, heard_places(captioner))
    monkeypatch.setattr(full_size_groups, "memory_bytes", lambda *_: most)
    fitting, notes = settings_that_fit(timed, captioners, 32, "cpu")
    assert fitting == settings[:2]
    assert notes == [
        f"EnCLAP++ base, nucleus, best of 30, 32 clips: not timed, what decoding remembers (its KV "
        f"cache) would take {most / 1e9:.1f} GB of {most / 1e9:.1f}"
    ]
    for total in (3 * most, None):
        monkeypatch.setattr(full_size_groups, "memory_bytes", lambda *_, total=total: total)
        assert settings_that_fit(timed, captioners, 32, "cpu") == (settings, [])
    assert settings_that_fit(replace(timed, published=None), {}, 32, "cpu") == (settings, [])
