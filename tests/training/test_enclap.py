"""Training of captioners on audio codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from dac_diffusion.autoregressive.bart import is_shifted
from dac_diffusion.autoregressive.code_embedding import CodeEmbedding
from dac_diffusion.autoregressive.language_models import LanguageModel, load_language_model
from dac_diffusion.autoregressive.network import caption_logits, encode_audio
from dac_diffusion.configuration import load_config
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import CaptionBatch
from dac_diffusion.training.enclap import CodeSizes, EnclapConfig, EnclapTrainer, build_enclap
from tests.autoregressive.tiny_bart import WIDTH, write_bart

SIZES = CodeSizes(num_codebooks=3, codebook_size=20, pooled_dim=6)
CONFIG = EnclapConfig(
    width=32, encoder_layers=1, decoder_layers=1, heads=2, feed_forward=64, dropout=0.0,
    max_codes=24, mask_span=4,
)  # fmt: skip
LENGTH = 12
CAPTIONS = [
    ["a dog barks", "barking of a dog"],
    ["rain falls and wind blows", "it rains"],
    ["birds sing", "a bird sings in the wind"],
    ["someone knocks on a door", "knocks on wood"],
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    torch.set_num_threads(1)
    return train_tokenizer([text for texts in CAPTIONS for text in texts], 120)


def batch(tokenizer: PreTrainedTokenizerFast, lengths: tuple[int, ...] = (20, 11, 40, 6)):
    """Clips of random codes with two captions each; the third is longer than is heard."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths), SIZES.num_codebooks)
    audio = AudioFeatures(
        torch.randint(0, SIZES.codebook_size, shape, generator=generator),
        torch.arange(max(lengths)) < torch.tensor(lengths)[:, None],
        torch.randn(len(lengths), SIZES.pooled_dim, generator=generator),
    )
    texts = [text for group in CAPTIONS[: len(lengths)] for text in group]
    ids = encode_captions(tokenizer, texts, LENGTH)
    return CaptionBatch(audio, ids.view(len(lengths), 2, LENGTH))


def trainer(
    tokenizer: PreTrainedTokenizerFast, config: EnclapConfig = CONFIG, max_length: int = LENGTH
) -> EnclapTrainer:
    torch.manual_seed(0)
    return build_enclap(config, SIZES, tokenizer, max_length)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_made_of_captions_and_hidden_codes(tokenizer: PreTrainedTokenizerFast) -> None:
    model, data = trainer(tokenizer, replace(CONFIG, mask_probability=0.0)).eval(), batch(tokenizer)
    with torch.no_grad():
        result = model(data, seeded())
        encoded = encode_audio(model.projection, model.network, data.audio)
        ids = data.token_ids.flatten(0, 1)
        logits = caption_logits(model.network, encoded.repeat(2), ids)
    logs, real = logits.log_softmax(dim=-1), ids != tokenizer.pad_token_id
    plain = -logs.gather(-1, ids[..., None])[..., 0][real].mean()
    smoothed = 0.8 * plain - 0.2 * logs.mean(dim=-1)[real].mean()
    assert float(result["masked_codec"]) == 0.0
    assert float(result["cross_entropy"]) == pytest.approx(float(plain), rel=1e-5)
    assert float(result["caption"]) == pytest.approx(float(smoothed), rel=1e-5)
    assert float(result["loss"]) == pytest.approx(float(smoothed), rel=1e-5)
    with torch.no_grad():
        masked = trainer(tokenizer).eval()(data, seeded())
    assert set(masked) == {"loss", "caption", "masked_codec", "cross_entropy"}
    assert float(masked["masked_codec"]) > 0
    assert float(masked["loss"]) == pytest.approx(
        float(masked["caption"] + 0.7 * masked["masked_codec"]), rel=1e-6
    )


def test_both_losses_see_the_hidden_codes_and_no_others(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = trainer(tokenizer).eval(), batch(tokenizer)
    hidden = torch.zeros(4, 24, 3, dtype=torch.bool)
    hidden[0, 3:7, 0] = hidden[0, 5:9, 2] = hidden[2, 20:24, 1] = True
    monkeypatch.setattr(model, "_draw", lambda audio, generator: hidden)
    # By hand: hide them, encode, and look up the outputs behind the vector and <s>.
    heard = data.audio.features[:, :24].clone()
    heard[hidden] = 20
    with torch.no_grad():
        result = model(data, seeded())
        audio = AudioFeatures(heard, data.audio.mask[:, :24], data.audio.pooled)
        encoded = encode_audio(model.projection, model.network, audio)
        logits = caption_logits(model.network, encoded.repeat(2), data.token_ids.flatten(0, 1))
        expected = 0.0
        for book in range(3):
            costs = [
                F.cross_entropy(
                    model.heads.heads[book](encoded.hidden[clip, 2 + place]),
                    data.audio.features[clip, place, book],
                )
                for clip, place in hidden[..., book].nonzero().tolist()
            ]
            expected += float(torch.stack(costs).mean()) / 2 ** (book + 1)
    assert float(result["masked_codec"]) == pytest.approx(expected, rel=1e-5)
    plain = F.cross_entropy(
        logits.flatten(0, 1), data.token_ids.flatten(), ignore_index=tokenizer.pad_token_id
    )
    assert float(result["cross_entropy"]) == pytest.approx(float(plain), rel=1e-5)


def test_the_generator_decides_what_is_hidden_and_heard(tokenizer: PreTrainedTokenizerFast) -> None:
    data = batch(tokenizer)
    model = trainer(tokenizer).train()
    with torch.no_grad():
        one, same, other = (model(data, seeded(seed))["loss"] for seed in (1, 1, 2))
    assert one == same
    assert one != other
    unmasked = trainer(tokenizer, replace(CONFIG, mask_probability=0.0))
    with torch.no_grad():
        runs = {float(unmasked.train()(data, seeded(seed))["caption"]) for seed in range(4)}
        first = {float(unmasked.eval()(data, seeded(seed))["caption"]) for seed in range(4)}
    assert len(runs) > 1  # a random run of the long clip's codes
    assert len(first) == 1  # the first of them


def test_every_part_learns_and_the_loss_falls(tokenizer: PreTrainedTokenizerFast) -> None:
    model, data = trainer(tokenizer), batch(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    generator, losses = seeded(), []
    for step in range(60):
        result = model(data, generator)
        losses.append(result)
        result["loss"].backward()
        if step == 0:
            silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
            # Softmax does not see what is added to all keys alike.
            assert {name for name in silent if not name.endswith("k_proj.bias")} == set()
        optimizer.step()
        optimizer.zero_grad()
    for name, factor in (("loss", 0.8), ("cross_entropy", 0.25), ("masked_codec", 0.95)):
        early, late = (
            sum(float(r[name].detach()) for r in part) / 5 for part in (losses[:5], losses[-5:])
        )
        assert late < factor * early, name
    assert (model.network.model.encoder.embed_positions.weight[2] == 0).all()
    assert all((t.weight[SIZES.codebook_size] == 0).all() for t in model.projection.tables)
    model.eval()
    with torch.no_grad():
        encoded = encode_audio(model.projection, model.network, data.audio)
        ids = data.token_ids[:, 0]
        told = caption_logits(model.network, encoded, ids).argmax(dim=-1)
    real = ids != tokenizer.pad_token_id
    assert float((told == ids)[real].float().mean()) > 0.7


def test_a_clip_does_not_depend_on_its_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    model, data = trainer(tokenizer).eval(), batch(tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)  # so that a leak would show
        together = encode_audio(model.projection, model.network, data.audio)
        for clip, length in enumerate((20, 11, 24, 6)):
            alone = AudioFeatures(
                data.audio.features[clip : clip + 1, :length],
                data.audio.mask[clip : clip + 1, :length],
                data.audio.pooled[clip : clip + 1],
            )
            hidden = encode_audio(model.projection, model.network, alone).hidden
            torch.testing.assert_close(
                together.hidden[clip, : length + 3], hidden[0], atol=1e-5, rtol=1e-5
            )


def test_the_captioners_parts_are_saved_without_the_heads(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model, data = trainer(tokenizer).eval(), batch(tokenizer)
    model.projection.save_pretrained(tmp_path / "projection")
    model.network.save_pretrained(tmp_path / "network")
    projection = load_saved_model(CodeEmbedding, tmp_path / "projection")
    network, report = BartForConditionalGeneration.from_pretrained(
        tmp_path / "network", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert is_shifted(network)
    again = EnclapTrainer(projection, network, CONFIG)  # to go on training
    with torch.no_grad():
        encoded = [encode_audio(m.projection, m.network, data.audio).hidden for m in (model, again)]
    torch.testing.assert_close(*encoded, atol=1e-6, rtol=0)
    assert not any("heads" in name for name in (*projection.state_dict(), *network.state_dict()))


def test_without_the_vector_nothing_is_shifted(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = trainer(tokenizer, replace(CONFIG, sequence_vector=False))
    assert not is_shifted(bare.network)
    data = batch(tokenizer)
    bare(data, seeded())["loss"].backward()
    assert bare.network.model.encoder.embed_positions.weight.grad[2].any()
    other = replace(data.audio, pooled=torch.zeros(4, 0))
    with torch.no_grad():
        found = [encode_audio(bare.projection, bare.network, a).hidden for a in (data.audio, other)]
    assert torch.equal(*found)
    shifted = trainer(tokenizer).network
    with pytest.raises(ConfigError, match="sequence_vector=false: this network was trained with"):
        EnclapTrainer(bare.projection, shifted, CONFIG)


def test_it_trains_a_published_bart(tmp_path: Path) -> None:
    write_bart(tmp_path)
    bart = load_language_model(tmp_path)
    config = EnclapConfig(bart=str(tmp_path), max_codes=29)
    model = build_enclap(config, SIZES, bart.tokenizer, LENGTH, bart)
    assert model.network is bart.network
    assert model.network.training
    assert model.projection.config.width == WIDTH
    table = bart.network.model.shared.weight
    assert torch.equal(model.projection.frame.weight, table[[0, 2]])
    data = batch(bart.tokenizer)
    model.eval()
    result = model(data, seeded())
    # The library's own loss over the same encoder output.
    ids = data.token_ids.flatten(0, 1)
    with torch.no_grad():
        data_heard = AudioFeatures(
            *(getattr(data.audio, n) for n in ("features", "mask", "pooled"))
        )
        encoded = encode_audio(model.projection, model.network, data_heard).repeat(2)
        expected = model.network(
            encoder_outputs=(encoded.hidden,),
            attention_mask=encoded.mask,
            labels=ids.masked_fill(ids == bart.tokenizer.pad_token_id, -100),
        ).loss
        plain = EnclapTrainer(model.projection, model.network, replace(config, mask_probability=0))
        found = plain.eval()(data, seeded())["cross_entropy"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    result["loss"].backward()
    assert table.grad is not None


def test_it_goes_on_from_the_network_of_another_captioner(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first = trainer(tokenizer)
    first.network.save_pretrained(tmp_path)
    network = BartForConditionalGeneration.from_pretrained(tmp_path)
    again = build_enclap(CONFIG, SIZES, tokenizer, LENGTH, LanguageModel(network, tokenizer))
    table = again.network.model.encoder.embed_positions
    assert torch.equal(table.weight, first.network.model.encoder.embed_positions.weight)
    again(batch(tokenizer), seeded())["loss"].backward()
    assert not table.weight.grad[2].any()
    assert table.weight.grad[3].any()


def test_parts_that_do_not_fit_are_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_bart(tmp_path)
    bart, published = load_language_model(tmp_path), EnclapConfig(bart=str(tmp_path), max_codes=29)
    long = replace(published, max_codes=30)
    with pytest.raises(
        ConfigError, match=r"max_codes=30: the network has 32 positions, .* to 29 or"
    ):
        build_enclap(long, SIZES, bart.tokenizer, LENGTH, bart)
    with pytest.raises(ConfigError, match=r"max_length=33: .* has 32 positions; set it to at most"):
        build_enclap(published, SIZES, bart.tokenizer, 33, bart)
    with pytest.raises(ConfigError, match=r"bart=.*: load the network that the config names"):
        build_enclap(published, SIZES, bart.tokenizer, LENGTH)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ConfigError, match=r"bart=.*: is a gpt2, not a BART; name one such as face"):
        build_enclap(published, SIZES, tokenizer, LENGTH, LanguageModel(gpt2, tokenizer))
    data = batch(tokenizer)
    features = data.audio.features.clone()
    features[0, 0, 0] = SIZES.codebook_size  # the mask id is no code
    with pytest.raises(DataError, match=r"an audio code is 20, .* have 20 entries"):
        trainer(tokenizer)(replace(data, audio=replace(data.audio, features=features)), seeded())
    # Captions longer than the audio have positions of their own.
    brief = trainer(tokenizer, replace(CONFIG, max_codes=4), max_length=40)
    assert brief.network.config.max_position_embeddings == 41


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("width=33", "width=33: must be a multiple of heads=4"),
        ("mask_span=0", "mask_span=0: must be at least 1"),
        ("max_codes=0", "max_codes=0: must be at least 1"),
        ("mask_probability=1.0", "mask_probability=1.0: must be from 0 to below 1"),
        ("label_smoothing=-0.1", "label_smoothing=-0.1: must be from 0 to below 1"),
        ("mcm_weight=-1.0", "mcm_weight=-1.0: must be at least 0"),
        ("codebook_decay=.inf", "codebook_decay=inf: must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(EnclapConfig, None, [override])


def test_the_defaults_are_the_published_ones() -> None:
    config = load_config(EnclapConfig, None, ["bart=facebook/bart-base"])
    assert (config.label_smoothing, config.mcm_weight, config.codebook_decay) == (0.2, 0.7, 0.5)
    assert (config.mask_probability, config.mask_span, config.max_codes) == (0.15, 10, 1021)
    assert config.sequence_vector
