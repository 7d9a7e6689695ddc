"""Decoding methods against exhaustive search, teacher forcing and expected frequencies."""

import itertools
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.autoregressive.caption_tokens import CaptionTokens
from dac_diffusion.autoregressive.decoding import DecodingSettings, NucleusSampling, decode
from dac_diffusion.autoregressive.network import (
    EncodedAudio,
    caption_logits,
    sequence_log_likelihood,
)
from dac_diffusion.errors import ConfigError
from tests.autoregressive.networks_of_every_kind import (
    FIRST,
    WORDS,
    heard_clips,
    small_network,
)

LENGTH = 4
END, PAD = 2, 0


@pytest.fixture(scope="module", params=["mbart", "bart", "gpt2", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(kind: str) -> Any:
    return small_network(kind)


@pytest.fixture(scope="module")
def tokens(kind: str) -> CaptionTokens:
    """BART's captions begin with a token of their own."""
    return CaptionTokens(PAD, END, FIRST if kind == "bart" else None, never=(0, 1, 3))


@pytest.fixture(scope="module")
def audio(kind: str) -> EncodedAudio:
    return heard_clips(kind)


def generators(seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for _ in range(3)]


def decoded(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio, seed: int = 0, **settings: Any
) -> Tensor:
    """Token ids without the first token that all captions share."""
    offset = int(tokens.first is not None)
    with torch.no_grad():
        chosen = DecodingSettings(max_length=LENGTH + offset, **settings)
        ids = decode(network, tokens, audio, chosen, generators(seed))
    assert ids.shape[-1] == LENGTH + offset
    assert bool((ids[..., :offset] == FIRST).all())
    return ids[..., offset:]


def with_first(tokens: CaptionTokens, ids: Tensor) -> Tensor:
    """Captions as the network knows them."""
    return ids if tokens.first is None else F.pad(ids, (1, 0), value=tokens.first)


def all_captions() -> Tensor:
    """Every caption of up to three words with its end, and every unended one of four."""
    rows = []
    for length in range(1, LENGTH + 1):
        for words in itertools.product(WORDS, repeat=length):
            end = [END] * (length < LENGTH)
            rows.append([*words, *end] + [PAD] * (LENGTH - length - len(end)))
    return torch.tensor(rows)


def likelihoods(network: Any, tokens: CaptionTokens, audio: EncodedAudio, ids: Tensor) -> Tensor:
    """Mean log-probability of captions (N, LENGTH) of one clip; the first token is given."""
    count = (ids != PAD).sum(dim=-1)
    with torch.no_grad():
        repeated = audio.repeat(len(ids))
        if tokens.first is None:
            return sequence_log_likelihood(network, repeated, ids, PAD)
        whole = with_first(tokens, ids)
        total = sequence_log_likelihood(network, repeated, whole, PAD) * (count + 1)
        logits = caption_logits(network, repeated, whole)[:, 0]
        return (total - logits.log_softmax(dim=-1)[:, FIRST]) / count


def test_greedy_takes_the_likeliest_word_at_every_place(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio
) -> None:
    ids = decoded(network, tokens, audio, method="greedy")
    assert ids.shape == (3, 1, LENGTH)
    offset = int(tokens.first is not None)
    with torch.no_grad():
        logits = caption_logits(network, audio, with_first(tokens, ids[:, 0]))[:, offset:].clone()
    logits[..., [0, 1, 3]] = -math.inf  # padding, unknown and start are never written
    logits[:, 0, END] = -math.inf  # and no caption is empty
    for row, expected in zip(ids[:, 0], logits.argmax(dim=-1), strict=True):
        words = row != PAD
        assert torch.equal(row[words], expected[words])


@pytest.mark.parametrize("method", ["beam", "diverse_beam"])
def test_with_enough_beams_the_likeliest_caption_is_found(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio, method: str
) -> None:
    everything = all_captions()
    ids = decoded(network, tokens, audio, method=method, num_beams=200, num_candidates=1)
    for clip in range(3):
        found = likelihoods(network, tokens, audio.select([clip]), everything)
        best = everything[found.argmax()]
        assert torch.equal(ids[clip, 0], best)


def test_beams_come_best_first_and_differ(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio
) -> None:
    ids = decoded(network, tokens, audio, method="beam", num_beams=6, num_candidates=4)
    assert ids.shape == (3, 4, LENGTH)
    for clip in range(3):
        assert len({tuple(row) for row in ids[clip].tolist()}) == 4
        found = likelihoods(network, tokens, audio.select([clip]), ids[clip])
        assert found.tolist() == sorted(found.tolist(), reverse=True)


def test_groups_without_penalty_are_alike_and_with_it_differ(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio
) -> None:
    greedy = decoded(network, tokens, audio, method="greedy")[:, 0]
    shared = {"method": "diverse_beam", "num_beams": 4, "num_candidates": 4}
    alike = decoded(network, tokens, audio, diversity_penalty=0.0, **shared)
    for group in range(4):
        assert torch.equal(alike[:, group], greedy)
    apart = decoded(network, tokens, audio, diversity_penalty=1e4, **shared)
    assert torch.equal(apart[:, 0], greedy)
    for clip in range(3):
        assert len(set(apart[clip, :, 0].tolist())) == 4  # four words, four groups


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus"])
def test_no_ngram_comes_twice_where_that_is_forbidden(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio, method: str
) -> None:
    ids = decoded(network, tokens, audio, method=method, no_repeat_ngram=1, min_length=LENGTH)
    for row in ids[:, 0].tolist():
        assert len(set(row)) == LENGTH


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus", "diverse_beam"])
def test_a_least_length_is_kept(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio, method: str
) -> None:
    count = 1 if method == "greedy" else 2
    free = decoded(network, tokens, audio, method=method, num_candidates=count)
    assert bool((free[..., 0] != END).all())
    fixed = decoded(network, tokens, audio, method=method, num_candidates=count, min_length=LENGTH)
    assert bool((fixed > END).all())  # words only, as many as there is room for


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus", "diverse_beam"])
def test_the_least_room_is_one_token_beside_the_given_one(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio, method: Any
) -> None:
    settings = {"method": method, "num_candidates": 1}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        if tokens.first is None:
            ids = decode(
                network, tokens, audio, DecodingSettings(max_length=1, **settings), generators()
            )
            assert bool((ids != END).all())
            return
        chosen = DecodingSettings(min_length=2, max_length=2, **settings)
        ids = decode(network, tokens, audio, chosen, generators())
        assert bool((ids[..., 1] != END).all())
        with pytest.raises(ConfigError, match="max_length=1: must be at least 2"):
            decode(network, tokens, audio, DecodingSettings(max_length=1, **settings), generators())


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus", "diverse_beam"])
def test_a_clip_is_decoded_alike_alone_and_in_a_batch(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio, method: Any
) -> None:
    count = 1 if method == "greedy" else 3
    settings = DecodingSettings(method=method, num_candidates=count, max_length=LENGTH)
    with torch.no_grad():
        together = decode(network, tokens, audio, settings, generators())
        for clip in range(3):
            alone = decode(network, tokens, audio.select([clip]), settings, generators()[:1])
            assert torch.equal(alone[0], together[clip])


def test_nucleus_sampling_follows_the_seed_and_leaves_global_state(
    network: Any, tokens: CaptionTokens, audio: EncodedAudio
) -> None:
    shared = {"method": "nucleus", "num_candidates": 5, "top_p": 1.0}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = decoded(network, tokens, audio, seed=1, **shared)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(decoded(network, tokens, audio, seed=1, **shared), first)
    assert not torch.equal(decoded(network, tokens, audio, seed=2, **shared), first)


def test_nucleus_draws_have_the_probabilities_of_the_nucleus() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draw = NucleusSampling([torch.Generator().manual_seed(0)], temperature=1.0, top_p=0.85)
    scores = probabilities.log().expand(20000, 4)
    drawn = draw(torch.zeros(20000, 1, dtype=torch.long), scores).argmax(dim=-1)
    found = torch.bincount(drawn, minlength=4) / 20000
    # The smallest set with at least 0.85 of the mass is the first three, rescaled.
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert torch.allclose(found, expected, atol=0.015)
    assert found[3] == 0


def test_temperature_sharpens() -> None:
    probabilities = torch.tensor([0.6, 0.4])
    draw = NucleusSampling([torch.Generator().manual_seed(0)], temperature=0.5, top_p=1.0)
    drawn = draw(torch.zeros(20000, 1), probabilities.log().expand(20000, 2)).argmax(dim=-1)
    expected = 0.6**2 / (0.6**2 + 0.4**2)
    assert float((drawn == 0).float().mean()) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "decoding='magic': must be one of greedy, beam, nucleus, diverse_b"),
        ({"num_candidates": 0}, "num_candidates=0: must be at least 1"),
        ({"num_beams": 0}, "num_beams=0: must be at least 1"),
        ({"min_length": 0}, "min_length=0: must be at least 1"),
        ({"max_length": 25}, "max_length=25: must be at least min_length=1 and at most 24"),
        ({"min_length": 9, "max_length": 8}, "max_length=8: must be at least min_length=9"),
        ({"method": "greedy", "num_candidates": 2}, "greedy decoding has one caption only"),
        ({"temperature": 0.0}, "temperature=0.0: must be greater than 0"),
        ({"top_p": 0.0}, "top_p=0.0: must be greater than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"diversity_penalty": -1.0}, "diversity_penalty=-1.0: must be at least 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1: must be at least 0"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DecodingSettings(**settings).check(longest=24)
    assert message in str(caught.value)
